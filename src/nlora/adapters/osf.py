"""The update by Orthogonal Subspace Fine-tuning (PEFT's OSF): W = U_h S_h V_h + U_l S_l V_l.

Of each adapted matrix the singular directions of the largest values (h, `effective_rank` of them)
are frozen, U_l, S_l and V_l of the others are trained, and the gradients of U_l and V_l are
projected onto what is orthogonal to U_h and V_h. Task after task is meant (PEFT's documentation,
"Training Advice for Continual Learning") as: train, take OSF out of the model, wrap what the
weights have become once more, so that its SVD holds what was learned, and preserve more. The page
takes it out with `unload()`; since PEFT's layer keeps a change beside the weights (PEFT 0.21) that
loses what was trained, so here it is merged first.

PEFT projects gradients alone. Adam divides each entry by a size of its own, so its steps leave the
subspace: `project` takes them back, and `notes` tells how much of the change is not in it.

PEFT multiplies every token by the factors, which have more numbers than the matrix as long as most
directions are trained: a step takes about five times as long as one of the matrices themselves.
Here the factors are multiplied once per pass, which the tokens of a batch share (`_Once`).

The weights are fp32. Of bf16 weights PEFT takes the SVD in fp32 but rounds its factors to bf16,
whose orthogonality then holds to three digits, and the merge rounds what was learned to the
weights' grid; that is refused. Mixed precision (autocast) keeps factors, projection and merge fp32.
"""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import torch
from peft import OSFConfig, TaskType, get_peft_model
from peft.tuners.osf import Linear
from torch import Tensor
from torch.nn import Parameter

from nlora.adapters.base import Abilities, Beginning, swapped
from nlora.adapters.settings import AdapterSettings
from nlora.adapters.whole import Whole
from nlora.errors import NloraError

ADAPTER = "default"


class Osf(Whole):
    """The adapted matrices are trained outside their first singular directions.

    Saved are these matrices whole, as they stand after the stage, and the newest state replaces the
    one before: a change costs as much (at half the directions its factors are as large as the
    matrix) and would be needed of every stage.
    """

    name = "osf"
    summary = "matrices outside their first singular directions (PEFT's OSF)"
    can = Abilities(fold=True, gradients=True, merge=True)
    file = "weights.safetensors"

    def __init__(
        self,
        model: Any,
        target_modules: str | list[str] | None = None,
        effective_rank: float = 0.5,
    ) -> None:
        super().__init__(model)
        self.effective_rank = effective_rank
        """What the next `begin` preserves of each matrix: a number of directions (int), or a share
        of them below 1, of which there is at least one."""
        self.target_modules = target_modules
        self.layers: dict[str, Any] = {}
        """PEFT's layers of the stage in hand, by matrix."""
        self._weights: dict[str, Parameter] = {
            name: model.get_submodule(name).weight for name in self._targets()
        }
        self._check_weights()
        model.requires_grad_(False)
        self._in_hand = False
        """Whether there is an update that is not merged into the weights."""
        self._leaked = 0.0

    @classmethod
    def build(cls, model: Any, settings: AdapterSettings, effective_rank: float = 0.5) -> Self:
        """The matrices that `target_modules` names; `effective_rank` is the first stage's."""
        return cls(model, settings.target_modules, effective_rank)

    def matrices(self) -> dict[str, Any]:
        """PEFT's layers, while there is an update in hand."""
        return self.layers

    def update(self) -> dict[str, Tensor]:
        """The adapted matrices (out, in), which hold what is trained once it is consolidated."""
        return {f"{name}.weight": weight for name, weight in self._weights.items()}

    def prepare(self, asked: Beginning) -> None:
        """Take the SVD of the weights as they stand, and preserve `effective_rank` of it."""
        self.change()
        plain = self.merged()
        self._start = [w.data for w in self._weights.values()] if asked.keep_previous else []
        least = _preserve_one(self.effective_rank, self._weights)
        self.model = self._wrapped(plain, self.effective_rank, least)
        self.layers = _layers(self.model)
        for layer in self.layers.values():
            _once(layer)
        if not sum(p.numel() for p in self.trainable()):
            raise NloraError(
                f"setting effective_rank: {self.effective_rank} directions are all that the "
                "adapted matrices have, so nothing is left to train"
            )
        self._in_hand = True

    @torch.no_grad()
    def project(self) -> None:
        """Take back what U_l and V_l have of the frozen directions."""
        for layer in self.layers.values():
            factors = layer.osf_svd_params[ADAPTER]
            factors["U_low"].copy_(_outside_left(layer, factors["U_low"]))
            factors["V_low"].copy_(_outside_right(layer, factors["V_low"]))

    @torch.no_grad()
    def consolidate(self) -> None:
        """Merge the change into the weights, as they are saved and evaluated."""
        if self._in_hand:
            self._leaked = _leak(self.layers.values())
            self.model.merge_adapter()
            self._in_hand = False

    def drop(self) -> None:
        """Take OSF out of the model, and what it has trained with it."""
        if self.layers:
            self.model = self.model.unload()
        self.layers = {}
        self._in_hand = False
        self._leaked = 0.0

    def merged(self) -> Any:
        """The plain model, whose weights are what was trained."""
        self.consolidate()
        return self.model.unload() if self.layers else self.model

    def notes(self) -> dict[str, float]:
        """The share of the singular directions that was preserved, and `osf_leak`.

        That is ‖ΔW − its part outside the preserved directions‖ / ‖ΔW‖ over all matrices.
        """
        preserved = sum(layer.effective_rank[ADAPTER] for layer in self.layers.values())
        directions = sum(min(w.shape) for w in self._weights.values())
        return {"osf_preserved": preserved / directions, "osf_leak": self._leaked}

    @contextmanager
    def made_of(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """The model with other adapted matrices and no update in hand."""
        without_update = self.model.disable_adapter() if self._in_hand else nullcontext()
        with without_update, swapped(self._weights.values(), weights):
            yield

    def _wrapped(self, model: Any, rank: float, ranks: Mapping[str, int]) -> Any:
        """The model with OSF that preserves `rank`, or for the matrices of these names `ranks`."""
        kind = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
        config = OSFConfig(
            task_type=kind,
            effective_rank=rank,
            rank_pattern={f"^{re.escape(name)}$": own for name, own in ranks.items()},
            target_modules=self.target_modules,
        )
        return get_peft_model(model, config)

    def _targets(self) -> list[str]:
        """The matrices that PEFT adapts, asked of an empty shell of the model."""
        with torch.device("meta"):
            shell = type(self.model)(self.model.config)
            try:
                wrapped = self._wrapped(shell, 1, {})
            except (ValueError, re.error) as error:
                reason = textwrap.shorten(str(error), 300, placeholder=" …")
                raise NloraError(
                    f"cannot put OSF into this model: {reason} (setting target_modules)"
                ) from error
        found = _layers(wrapped)
        for name in wrapped.base_model.targeted_module_names:
            if name not in found:
                kind = type(self.model.get_submodule(name)).__name__
                raise NloraError(
                    f"setting target_modules: '{name}' is a {kind}; OSF takes linear layers only"
                )
        return list(found)

    def _check_weights(self) -> None:
        names = Counter(id(p) for _, p in self.model.named_parameters(remove_duplicate=False))
        for name, weight in self._weights.items():
            if weight.dtype != torch.float32:
                kind = str(weight.dtype).removeprefix("torch.")
                raise NloraError(f"OSF needs fp32 weights, and those of '{name}' are {kind}")
            if names[id(weight)] > 1:
                raise NloraError(
                    f"setting target_modules: '{name}' shares its weights with another layer, "
                    "which OSF would change too"
                )


class _Once(Linear):
    """PEFT's layer, whose matrix is put together once for all tokens."""

    rest: Tensor
    """The frozen part of the matrix, U_h S_h V_h."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x @ (U_h S_h V_h + U_l S_l V_l)ᵀ + bias, or by the weights where they hold it."""
        base: Any = self.get_base_layer()
        if self.disable_adapters or self.merged:
            return base(x, *args, **kwargs)
        factors: Any = self.osf_svd_params[ADAPTER]
        with torch.autocast(x.device.type, enabled=False):
            low = factors["U_low"] * factors["S_low"]
            weight = torch.addmm(self.rest, low, factors["V_low"])
        return torch.nn.functional.linear(x, weight, base.bias)


@torch.no_grad()
def _once(layer: Any) -> None:
    factors = layer.osf_svd_params[ADAPTER]
    low = factors["U_low"] * factors["S_low"]
    layer.rest = torch.addmm(layer.get_base_layer().weight, low, factors["V_low"], alpha=-1)
    layer.__class__ = _Once


def _layers(model: Any) -> dict[str, Any]:
    modules = model.get_base_model().named_modules()
    return {name: module for name, module in modules if isinstance(module, Linear)}


def _preserve_one(rank: float, weights: Mapping[str, Parameter]) -> dict[str, int]:
    """The matrices of which a share preserves no direction: PEFT wants one."""
    return {name: 1 for name, weight in weights.items() if int(min(weight.shape) * rank) < 1}


def _outside_left(layer: Any, matrix: Tensor) -> Tensor:
    """(I − U_h U_hᵀ) @ matrix, with U_h (out, k). PEFT keeps U_h or, if U is square, U_l alone."""
    if ADAPTER in layer._osf_U_high:
        high = layer._osf_U_high[ADAPTER]
        return matrix - high @ (high.T @ matrix)
    low = layer._osf_U_low_init[ADAPTER]
    return low @ (low.T @ matrix)


def _outside_right(layer: Any, matrix: Tensor) -> Tensor:
    """Matrix @ (I − V_hᵀ V_h), with V_h (k, in)."""
    if ADAPTER in layer._osf_V_high:
        high = layer._osf_V_high[ADAPTER]
        return matrix - (matrix @ high.T) @ high
    low = layer._osf_V_low_init[ADAPTER]
    return (matrix @ low.T) @ low


def _leak(layers: Any) -> float:
    leaked = total = 0.0
    for layer in layers:
        delta = layer.get_delta_weight(ADAPTER)
        inside = _outside_right(layer, _outside_left(layer, delta))
        leaked += float((delta - inside).square().sum())
        total += float(delta.square().sum())
    return (leaked / total) ** 0.5 if total > 0 else 0.0
