"""Where LoRA's factors start, by PEFT's names (`init_lora_weights`)."""

from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from nlora.errors import NloraError
from nlora.lowrank.factors import Factors

NEGLIGIBLE = 1e-5
"""Relative to ‖A‖·‖B‖, what rounding leaves of a product that is 0 (orthogonal start)."""


def peft_start(name: str, weight: Tensor, rank: int, scaling: float) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank) for a weight (out, in), which is left as it is.

    PEFT takes the part B·A out of the weight that it is given, so it is given a copy. Raises
    NloraError where PEFT refuses.
    """
    matrix = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    matrix.weight = nn.Parameter(weight.detach().float().clone(), requires_grad=False)
    config = LoraConfig(
        r=rank,
        lora_alpha=scaling * rank,  # type: ignore[arg-type]
        init_lora_weights=name,  # type: ignore[arg-type]
        target_modules=["matrix"],
    )
    try:
        layer = inject_adapter_in_model(config, nn.ModuleDict({"matrix": matrix}))["matrix"]  # type: ignore[index]
    except ValueError as error:
        raise NloraError(f"setting 'start': {name}: {error}") from error
    A, B = (getattr(layer, f"lora_{letter}")["default"].weight.detach() for letter in "AB")
    if A.shape[0] != rank or B.shape[1] != rank:
        raise NloraError(
            f"setting 'start': {name} needs a rank of at most {A.shape[0]}, which a matrix of "
            f"{list(weight.shape)} has; the rank is {rank}"
        )
    return A, B


def place(name: str, factors: Factors, given: tuple[Tensor, Tensor]) -> None:
    """Let these values be the factors of the matrix of that name.

    Raises NloraError if they have another shape.
    """
    for factor, values in zip((factors.A, factors.B), given, strict=True):
        if factor.shape != values.shape:
            raise NloraError(
                f"the start of '{name}' is {list(values.shape)} instead of {list(factor.shape)}"
            )
        factor.copy_(values)


def moves(factors: Factors) -> bool:
    """Whether these factors change the model: B·A is not 0."""
    size = factors.A.norm() * factors.B.norm()
    return float((factors.B @ factors.A).norm()) > NEGLIGIBLE * float(size)
