"""The settings of a run that decide where an update lives."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from nlora.errors import unknown

Count = Annotated[int, Field(gt=0, lt=2**31)]

STARTS = ("default", "gaussian", "orthogonal", "pissa", "pissa_niter_16", "olora")
"""PEFT's names for LoRA's starts that need neither data nor a quantised model; the number of
iterations of `pissa_niter_16` is free."""


class Strict(BaseModel):
    """Settings in which true and false are no numbers: pydantic alone takes `rank=true` for 1."""

    @model_validator(mode="wrap")
    @classmethod
    def _true_is_no_number(cls, values: Any, handler: ModelWrapValidatorHandler) -> Any:
        made = handler(values)
        for name, value in values.items() if isinstance(values, Mapping) else ():
            given = value if isinstance(value, list) else [value]
            if any(isinstance(v, bool) for v in given) and _number(getattr(made, name, None)):
                raise ValidationError.from_exception_data(
                    cls.__name__,
                    [
                        InitErrorDetails(
                            type=PydanticCustomError("number", "must be a number"),
                            loc=(name,),
                            input=value,
                        )
                    ],
                )
        return made


def _number(value: Any) -> bool:
    """Whether a value, or the first of a list, has become a number."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, int | float) and not isinstance(first, bool)


class AdapterSettings(Strict):
    """What an adapter is built from, beside the model and the options of a method."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rank: Count = Field(8, description="of LoRA")
    alpha: float = Field(32.0, gt=0, description="LoRA's α: ΔW = (α/rank)·B·A")
    dropout: float = Field(0.1, ge=0, lt=1, description="LoRA's dropout")
    target_modules: str | list[str] | None = Field(
        None,
        description="matrices that LoRA adapts; by default the attention's query and value "
        "projections (--dry-run names them)",
    )
    start: str = Field(
        "default",
        description="how LoRA's factors start, by PEFT's names: gaussian, orthogonal, pissa, "
        "pissa_niter_N, olora; the base model's weights stay what they are",
    )
    history_rank: Count = Field(
        128, description="bf16 models: rank beyond which the earlier updates are recompressed"
    )
    peft_type: str | None = Field(
        None, description="adapter peft: the tuner, by PEFT's name (LOHA, LOKR, OFT, LORA, …)"
    )
    peft_options: dict[str, Any] = Field(
        default_factory=dict, description="adapter peft: the tuner's own options, by PEFT's names"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto is bf16 where the hardware is faster with it"
    )

    quantization: Literal["none", "4bit", "8bit"] = Field(
        "none",
        description="of the frozen base model in memory, by bitsandbytes: 4bit (NF4, doubly "
        "quantised) or 8bit",
    )

    @field_validator("start")
    @classmethod
    def _known_start(cls, name: str) -> str:
        if name not in STARTS and not re.fullmatch(r"pissa_niter_\d+", name):
            raise unknown("start", name, STARTS)
        return name

    @property
    def fold(self) -> bool:
        """Whether earlier updates may join the model's weights, which fp32 has room for."""
        return self.precision == "fp32" and self.quantization == "none"
