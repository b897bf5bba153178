"""The update as a LoRA adapter (PEFT): ΔW = (α/r)·B @ A at every adapted matrix.

The newest update is PEFT's adapter "default". Earlier ones are kept as factors; a consolidation
(`nlora.merging`) says what model they make together, at a cost that does not grow with their number
(`past`). A task is trained on top of what the tasks before it make together.

An update may start where B·A is not 0 (PiSSA, OLoRA, a method's own start). PEFT then changes the
base model's weights. Here they stay what they are published as: the update is counted from where
it starts, ΔW = (α/r)·(B @ A − B₀ @ A₀), with the second term frozen beside the adapter. It is saved
as one PEFT adapter of rank 2r, [A; A₀] and [B, −B₀].
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from peft import LoraConfig, TaskType
from torch import Tensor
from torch.nn import Parameter

from nlora.adapters.base import Abilities, Beginning
from nlora.adapters.layers import layers, plain, save_adapter, targets, wrapped
from nlora.adapters.past import Branch, Dense, Folded, Past, Scaled
from nlora.adapters.settings import AdapterSettings
from nlora.adapters.stacked import Stacked
from nlora.adapters.starts import moves, peft_start, place
from nlora.errors import NloraError
from nlora.fast.dropout import Dropout
from nlora.lowrank.factors import Factors, concatenate
from nlora.merging.base import Consolidation
from nlora.merging.registry import consolidation as by_name
from nlora.tensors import read_tensors

ADAPTER = "default"
SCALES = "scales"


class Lora(Stacked[Factors]):
    """A fresh adapter per stage, or one that is continued.

    `past` says how earlier updates are active, given the layers and `history_rank`; by default the
    weights decide (`fold`).
    """

    name = "lora"
    summary = "a pair of low-rank factors per matrix"
    can = Abilities(
        fold=True, start=True, factors=True, gradients=True, peft=True, quantized=True, merge=True
    )

    def __init__(
        self,
        model: Any,
        rank: int,
        alpha: float,
        dropout: float,
        target_modules: str | list[str] | None = None,
        fold: bool = True,
        history_rank: int = 128,
        consolidation: str | Consolidation = "sum",
        start: str = "default",
        past: Callable[[Mapping[str, Any], int], Past] | None = None,
    ) -> None:
        super().__init__()
        kind = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
        self.targets = targets(model, target_modules)
        config = LoraConfig(
            task_type=kind,
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            lora_dropout=dropout,
            target_modules=self.targets.modules,
        )
        self.model: Any = wrapped(model, config)
        self.layers = layers(self.model)
        for layer in self.layers.values() if dropout > 0 else ():
            layer.lora_dropout[ADAPTER] = Dropout(dropout)
        self.consolidation = (
            by_name(consolidation) if isinstance(consolidation, str) else consolidation
        )
        self.start = start
        fold = fold and plain(self.layers)
        if start != "default" and not plain(self.layers):
            raise NloraError(
                f"setting 'start': {start} is made from the base model's weights, which are "
                "quantised or sharded; leave it out"
            )
        self.origin: dict[str, Factors] = {}
        """By matrix −B₀·A₀, where the update in hand does not start at 0."""
        self._frozen: frozenset[str] = frozenset()
        self._scaled = Scaled(self.layers)
        self._active: Past = Folded(self.layers)
        if not fold and (self.consolidation.additive or self.alone):
            self._active = Branch(self.model, self.layers, ADAPTER, history_rank)
        elif not fold:
            self._active = Dense(self.layers, model.dtype)
        if past is not None:
            self._active = past(self.layers, history_rank)

    @classmethod
    def build(
        cls, model: Any, settings: AdapterSettings, consolidation: str | Consolidation = "sum"
    ) -> Self:
        """LoRA as the settings say; `consolidation` is a strategy or its name."""
        return cls(
            model,
            settings.rank,
            settings.alpha,
            settings.dropout,
            settings.target_modules,
            settings.fold,
            settings.history_rank,
            consolidation,
            settings.start,
        )

    def whole(self) -> dict[str, Factors]:
        """The factors whose product is this stage's ΔW, by matrix, for penalties on ΔW.

        Raises NloraError where the update is counted from a start that is not 0, since its trained
        factors alone are not ΔW then.
        """
        if self.origin:
            raise NloraError("a penalty on ΔW needs an update that starts at 0; set start=default")
        return self.factors()

    def factors(self) -> dict[str, Factors]:
        """The factors of this stage's update, by matrix, as they are trained.

        Where the update has an `origin`, ΔW is their product and the origin's.
        """
        return {
            name: Factors(
                layer.lora_A[ADAPTER].weight,
                layer.lora_B[ADAPTER].weight,
                float(layer.scaling[ADAPTER]),
            )
            for name, layer in self.layers.items()
        }

    def matrices(self) -> dict[str, Any]:
        """PEFT's layers."""
        return self.layers

    def update(self) -> dict[str, Tensor]:
        """A and B of every adapted matrix, and those of its origin (A0, and −B₀ as B0)."""
        found = {}
        for name, (A, B, _) in self.factors().items():
            found |= {f"{name}.A": A, f"{name}.B": B}
            if self.origin:
                found |= {f"{name}.A0": self.origin[name].A, f"{name}.B0": self.origin[name].B}
        return found

    def prepare(self, asked: Beginning) -> None:
        """A fresh adapter on top of all earlier updates, or the last one continued."""
        frozen = frozenset(asked.frozen)
        if not frozen < {"A", "B"}:
            raise NloraError(f"'A' or 'B' can be frozen, not {sorted(frozen)}")
        if asked.scales and not self.consolidation.additive:
            raise NloraError(
                f"scalars on earlier updates need their sum, not '{self.consolidation.name}'; "
                "set consolidation=sum"
            )
        self._frozen = frozen
        super().prepare(asked)

    def draw(self, asked: Beginning) -> None:
        """Fresh factors: B = 0, or as PEFT's start or the method's says."""
        for layer in self.layers.values():
            layer.reset_lora_parameters(ADAPTER, init_lora_weights=True)
        self.origin = {}
        if self.model.device.type == "meta":  # a shell has no weights to start from
            return
        if asked.start is None and self.start == "default":
            return
        if asked.start is None:
            self._active.clear()  # every update starts from the published weights
            self._scaled.clear()
        given = asked.start or self._named
        with torch.no_grad():
            for name, factors in self.factors().items():
                place(name, factors, given(name, factors))
            if any(moves(factors) for factors in self.factors().values()):
                self.origin = {
                    name: Factors(A.detach().clone(), -B.detach(), scaling)
                    for name, (A, B, scaling) in self.factors().items()
                }

    def _named(self, name: str, factors: Factors) -> tuple[Tensor, Tensor]:
        layer = self.layers[name]
        weight = layer.get_base_layer().weight
        weight = weight.T if layer.fan_in_fan_out else weight
        return peft_start(self.start, weight, len(factors.A), factors.scaling)

    def choose(self, asked: Beginning) -> None:
        """Scalars on the earlier updates, where there are any or some are asked for."""
        known = self.extra.pop(SCALES, None)
        self.model.past_scales = None
        if self.past and (asked.scales or known is not None):
            device = next(iter(self.factors().values())).A.device
            values = torch.ones(len(self.past), device=device)
            if known is not None:
                values[: len(known)] = known.detach()
            self.extra[SCALES] = Parameter(values, requires_grad=asked.scales)
        if asked.scales:
            # A part of the model, so that the optimiser and whatever wraps the model find it.
            self.model.past_scales = self.extra.get(SCALES)

    def clear(self) -> None:
        """B = 0, and no origin."""
        self.origin = {}
        with torch.no_grad():
            for factors in self.factors().values():
                factors.B.zero_()

    def copy(self) -> dict[str, Factors]:
        """The whole update by matrix: of rank r, or 2r where it has an origin."""
        found = {}
        for name, (A, B, scaling) in self.factors().items():
            A, B = A.detach().clone(), B.detach().clone()
            if self.origin:
                origin = self.origin[name]
                A, B = torch.cat([A, origin.A]), torch.cat([B, origin.B], dim=1)
            found[name] = Factors(A, B, scaling)
        return found

    @torch.no_grad()
    def put(self, update: Mapping[str, Factors]) -> None:
        """Let this be the update: the factors that are trained, and the origin."""
        self.origin = {}
        for name, (A, B, scaling) in self.factors().items():
            given, rank = update[name], len(A)
            A.copy_(given.A[:rank])
            B.copy_(given.B[:, :rank])
            if len(given.A) > rank:
                origin = given.A[rank:].clone(), given.B[:, rank:].clone()
                self.origin[name] = Factors(*origin, scaling)

    def save(self, folder: Path) -> None:
        """A PEFT adapter that plain `PeftModel.from_pretrained` loads on the base model."""
        whole = self.copy()
        own = self.model.peft_config[ADAPTER]
        config = copy.copy(own)
        if isinstance(config.target_modules, set):  # or every process would write another order
            config.target_modules = sorted(config.target_modules)
        times = len(next(iter(whole.values())).A) // own.r
        config.r, config.lora_alpha = times * own.r, times * own.lora_alpha
        tensors = {}
        for name, (A, B, _) in whole.items():
            prefix = f"base_model.model.{name}.lora_"
            tensors[f"{prefix}A.{ADAPTER}.weight"] = A
            tensors[f"{prefix}B.{ADAPTER}.weight"] = B
        self.model.peft_config[ADAPTER] = config
        try:
            save_adapter(self.model, folder, ADAPTER, state_dict=tensors)
        finally:
            self.model.peft_config[ADAPTER] = own
        self.save_state(folder)

    def read(self, folder: Path) -> dict[str, Factors]:
        """The update in the folder's `adapter_model.safetensors`."""
        tensors, found = read_tensors(folder / "adapter_model.safetensors"), {}
        for name, own in self.factors().items():
            A, B = (tensors[f"base_model.model.{name}.lora_{x}.weight"].to(own.A) for x in "AB")
            found[name] = Factors(A, B, own.scaling)
        return found

    def load(self, folders: Sequence[Path]) -> None:
        """Activate saved adapters; the last stays the one that `begin` may continue."""
        self.model.past_scales = None
        self._frozen = frozenset()
        super().load(folders)

    @property
    def alone(self) -> bool:
        """As the consolidation says."""
        return self.consolidation.alone

    def activate(self) -> None:
        """What the earlier updates make together, beside the adapter in hand."""
        earlier = [] if self.alone else self.past
        scales = self.extra.get(SCALES)
        self._scaled.clear()
        if scales is not None and scales.requires_grad and not self.consolidated:
            self._scaled.put(earlier, scales)
            earlier = []
        elif scales is not None:
            earlier = _times(earlier, scales)
        if self.consolidated and not (self.consolidation.additive or self.alone):
            whole = self.copy()  # the newest stays the adapter, so put the difference beside it
            self._active.put(
                lambda name: (
                    _dense(self._merge([*earlier, whole], name)) - self.factors()[name].delta()
                )
            )
        elif earlier or self.origin:
            self._active.put(lambda name: self._before(earlier, name))
        else:
            self._active.clear()
        for factors in self.factors().values():
            factors.A.requires_grad_("A" not in self._frozen)
            factors.B.requires_grad_("B" not in self._frozen)

    def _merge(self, updates: list[dict[str, Factors]], name: str) -> Factors | Tensor:
        return self.consolidation.merged([update[name] for update in updates], name)

    def _before(self, earlier: list[dict[str, Factors]], name: str) -> Factors | Tensor:
        """The change that the update in hand, as it is trained, is added to."""
        if not earlier:
            return self.origin[name]
        merged = self._merge(earlier, name)
        if not self.origin:
            return merged
        if isinstance(merged, Tensor):
            return merged + self.origin[name].delta()
        return concatenate([merged, self.origin[name]])

    def change(self) -> Callable[[str], Factors | Tensor]:
        """What all updates together add to each matrix, by its name."""
        past = [*self.past, self.copy()]
        updates = past[-1:] if self.alone else past
        if SCALES in self.extra:
            scales = self.extra[SCALES]
            updates = _times(updates, torch.cat([scales, torch.ones_like(scales[:1])]))
        return lambda name: self._merge(updates, name)

    def merged(self) -> Any:
        """The plain model: the newest update is folded into the weights like those before it."""
        change = self.change()
        self._active.clear()
        self._scaled.clear()
        self.model.float()
        Folded(self.layers).put(change)
        return self.model.unload()

    def notes(self) -> dict[str, Any]:
        """The relative error with which a frozen branch stands for the earlier updates, and the
        scalars on them."""
        error = {} if isinstance(self._active, Folded) else {"history_error": self._active.error}
        scales = self.extra.get(SCALES)
        return error if scales is None else {**error, "scales": scales.tolist()}


def _times(updates: list[dict[str, Factors]], scales: Tensor) -> list[dict[str, Factors]]:
    return [
        {name: f._replace(scaling=scale * f.scaling) for name, f in update.items()}
        for update, scale in zip(updates, scales.tolist(), strict=True)
    ]


def _dense(change: Factors | Tensor) -> Tensor:
    return change.delta() if isinstance(change, Factors) else change
