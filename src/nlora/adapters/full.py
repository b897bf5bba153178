"""The update as a change of all parameters. The newest state replaces the one before."""

from typing import Any, Self

import torch
from torch import Tensor

from nlora.adapters.base import Abilities, Beginning, snapshot
from nlora.adapters.settings import AdapterSettings
from nlora.adapters.whole import Whole


class Full(Whole):
    """All parameters that a model is saved with are trained.

    `isolated` lets every stage begin at the base model.
    """

    name = "full"
    summary = "all parameters are trained"
    can = Abilities(fold=True, merge=True)
    file = "parameters.safetensors"

    def __init__(self, model: Any, isolated: bool = False) -> None:
        super().__init__(model, keep=isolated)
        self._isolated = isolated
        constant = getattr(model, "_keys_to_ignore_on_save", None) or ()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in constant)  # Marian's positions are computed anew

    @classmethod
    def build(cls, model: Any, settings: AdapterSettings, isolated: bool = False) -> Self:
        """All parameters of the model; no setting matters."""
        return cls(model, isolated)

    def update(self) -> dict[str, Tensor]:
        """Every parameter of the model; tied ones once."""
        return dict(self.model.named_parameters())

    def prepare(self, asked: Beginning) -> None:
        """Go on from the model as it stands. `keep_previous` costs a copy of the model."""
        self.change()
        if self._isolated and not asked.continued:
            base = self.base()
            with torch.no_grad():
                for name, parameter in self.update().items():
                    parameter.copy_(base[name])
        self._start = snapshot(self.update().values()) if asked.keep_previous else []

    def merged(self) -> Any:
        """The model as it is."""
        return self.model
