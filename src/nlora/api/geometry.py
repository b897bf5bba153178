"""`nlora.analyze` and `nlora.penalty`: adapters of anybody, with no model directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from nlora.api.arguments import check
from nlora.api.result import Result
from nlora.api.watching import watched
from nlora.report.table import Cell, Table, Value

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.lowrank.checks import Gradients
    from nlora.lowrank.factors import Factors
    from nlora.progress import Progress

    Norm = Callable[[Sequence[Factors]], tuple[Tensor, Gradients]]

_SIZES = {
    "‖ΔW‖_F": "frobenius",
    "‖ΔW‖₁": "l1",
    "GSR": "gsr",
    "effective rank": "effective_rank",
    "nuclear norm": "nuclear_norm",
}
_PAIRS = {
    "cosine": "cosine",
    "OO": "oo",
    "AWOM in": "awom_input_fro",
    "AWOM out": "awom_output_fro",
}


def analyze(
    *sources: str | Path,
    thresholds: str | float | Iterable[str | float] = ("0.1rms",),
    matrices: bool = False,
    same_base: bool = False,
    progress: Progress | bool | None = None,
) -> Analysis:
    """Where adapters collide, how orthogonal and how sparse they are.

    `sources` are folders or Hub names of LoRA adapters (PEFT), or one model directory. An entry
    counts as used above a threshold (one, or several): "0.1rms" is relative to the root mean square
    of its matrix, a bare number absolute. `matrices` adds the numbers of every matrix; `same_base`
    takes base models for one, whatever they are called. docs/analysis.md says what the numbers
    mean. Raises NloraError for what is no LoRA adapter, and for adapters that share no matrix.
    """
    check(thresholds=thresholds)
    from nlora.analysis.adapters import read_adapters
    from nlora.errors import NloraError
    from nlora.progress import shown, spoken

    adapters = read_adapters([str(source) for source in sources], same_base)
    from nlora.analysis.report import analyse  # slow, and not for a folder that is not there
    from nlora.lowrank.supports import Threshold

    asked = [thresholds] if isinstance(thresholds, str | float | int) else thresholds
    parsed, told = [Threshold.parse(str(one)) for one in asked], spoken(watched(progress))
    if not parsed:
        raise NloraError("above which threshold is an entry used? give one, such as '0.1rms'")
    with shown(told, "analysis", len(adapters[0].shapes)):
        return Analysis(analyse(adapters, parsed, matrices, told.advance))


class Analysis(Result):
    """The geometry of adapters; numbers are means over matrices."""

    @property
    def collision_rate(self) -> float | None:
        """ACR: the mean over pairs of the share of entries that both use; None of one adapter."""
        return self["acr"]

    def records(self) -> list[dict[str, Any]]:
        """A row per pair of adapters; of one adapter its sizes."""
        if not self["pairs"]:
            return [_means(one) for one in self["per_adapter"]]
        return [_means(pair) for pair in self["pairs"]]

    def tables(self) -> list[Table]:
        """The adapters, their pairs, and what that means in words."""
        from nlora.analysis.words import explain

        title = f"adapters, means over {self['matrices']} matrices; density: entries above "
        sizes: list[list[Cell]] = [
            [one["name"], *_cells(one, _SIZES), _percent(one["density"]["mean"])]
            for one in self["per_adapter"]
        ]
        made = [
            Table(
                "adapters",
                title + self["threshold"],
                ["adapter", *_SIZES, "density (%)"],
                sizes,
            )
        ]
        pairs: list[list[Cell]] = [
            [f"{p['a']} × {p['b']}", _percent(p["collision_rate"]["mean"]), *_cells(p, _PAIRS)]
            for p in self["pairs"]
        ]
        if pairs:
            columns = ["pair", "collide (%)", *_PAIRS]
            made.append(Table("pairs", f"pairs: ACR {100 * self['acr']:.3g} %", columns, pairs))
        made[-1].notes += explain(self.to_json())
        return made


def _means(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v["mean"] if isinstance(v, dict) else v for k, v in row.items()}


def _cells(row: dict[str, Any], keys: dict[str, str]) -> list[Cell]:
    return [Value(row[key]["mean"], form=".3g") for key in keys.values()]


def _percent(share: float) -> Cell:
    return Value(100 * share, form=".3g")


def penalty(
    model: Any, kind: str | Norm = "l1", *, adapter: str = "default", mean: bool = False
) -> Tensor:
    """What is penalised of a LoRA update, a scalar to put into a loss of one's own.

    `model` is a model of PEFT whose `adapter` is trained, or the factors themselves: (A (r, in),
    B (out, r), scaling) per matrix. `kind` is "l1" for ‖ΔW‖₁ (N-LoRA, Eq. 3), "l1-a", "l1-b",
    "l1-ab", "frobenius", "column-row" or "released" (docs/methods.md), or a function from factors
    to a value and its gradients (∂/∂A, ∂/∂B) per matrix. With `mean` it is over entries. Value and
    gradient are exact, and ΔW is never stored. Raises NloraError for an unknown kind and for a
    model without such an adapter.

    >>> import torch
    >>> A, B = torch.ones(1, 3, requires_grad=True), torch.tensor([[1.0], [-2.0]])
    >>> loss = 0.5 * penalty([(A, B, 2.0)])
    >>> loss.backward()
    >>> loss.item(), A.grad.tolist()
    (9.0, [[3.0, 3.0, 3.0]])
    """
    from nlora.errors import unknown
    from nlora.lowrank.l1 import entries, in_loss
    from nlora.methods.parts.sparsity import SparsityKind, norm

    factors = _factors(model, adapter)
    if callable(kind):
        return in_loss(kind, factors) / (entries(factors) if mean else 1)
    kinds = [known for known in get_args(SparsityKind) if known != "none"]
    if kind not in kinds:
        raise unknown("penalty", kind, kinds)
    found = norm(kind)
    return in_loss(found.value_and_grads, factors) / (found.entries(factors) if mean else 1)


def _factors(model: Any, adapter: str) -> list[Factors]:
    """The factors of a model's adapter, or those that were given as such."""
    from nlora.errors import NloraError
    from nlora.lowrank.factors import Factors

    if isinstance(model, Sequence):
        if not all(isinstance(one, Sequence) and len(one) == 3 for one in model):
            raise NloraError("factors are a list of (A, B, scaling), one per matrix")
        return [Factors(*one) for one in model]
    from nlora.adapters.layers import layers

    found = layers(model) if hasattr(model, "peft_config") else {}
    factors = [
        Factors(one.lora_A[adapter].weight, one.lora_B[adapter].weight, one.scaling[adapter])
        for one in found.values()
        if adapter in one.lora_A
    ]
    if not factors:
        known = ", ".join(getattr(model, "peft_config", {})) or "none"
        raise NloraError(f"the model has no LoRA adapter '{adapter}' (adapters of PEFT: {known})")
    return factors
