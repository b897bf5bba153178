"""What of the updates is left once weights are written in the numbers of a file.

bf16 keeps 8 bits of a weight, so an update that is a thousandth of it mostly vanishes when both are
added up and rounded, and no loss of accuracy on a few examples need show it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlora.adapters.lora import Lora
from nlora.lowrank.factors import Factors

PROMPTS = 16
"""Inputs whose logits are compared."""

Change = Callable[[str], Tensor | None]
"""The exact change of a parameter by its name; None for one that is not changed."""


@dataclass(frozen=True)
class Survival:
    """How far what is written is from what was trained, ‖(W′ − W) − ΔW‖ / ‖ΔW‖ in per cent."""

    lost: float
    """Over all changed matrices together."""
    matrices: dict[str, float]
    """Of each of them."""


@torch.no_grad()
def survival(
    base: Mapping[str, Tensor], plain: Mapping[str, Tensor], change: Change, dtype: torch.dtype
) -> Survival:
    """Compare merged parameters (fp32), rounded to `dtype`, with the base's and the exact change.

    All by the names of the plain model; what has no change is left out.
    """
    lost: dict[str, float] = {}
    size: dict[str, float] = {}
    seen: set[int] = set()  # a matrix of two names counts once
    for name, weight in plain.items():
        exact = None if id(weight) in seen else change(name)
        seen.add(id(weight))
        if exact is None:
            continue
        exact = exact.double()
        written = weight.to(dtype).double() - base[name].to(weight.device).double()
        size[name] = float(exact.square().sum())
        lost[name] = float((written - exact).square().sum())
    ratios = {n: _per_cent(lost[n], size[n]) for n in lost if size[n] > 0}
    return Survival(_per_cent(sum(lost.values()), sum(size.values())), ratios)


def _per_cent(lost: float, size: float) -> float:
    return 100 * (lost / size) ** 0.5 if size > 0 else 0.0


def changes(adapter: Any, base: Mapping[str, Tensor]) -> Callable[[Mapping[str, Tensor]], Change]:
    """What an adapter changes, from before it is merged: to be given the merged parameters then.

    LoRA's is computed from its factors. Of others it is the difference of the merged weights, in
    fp32, from the base's.
    """
    if isinstance(adapter, Lora):
        whole, layers = adapter.change(), dict(adapter.layers)

        def exact(name: str) -> Tensor | None:
            layer = layers.get(name.removesuffix(".weight"))
            if layer is None or not name.endswith(".weight"):
                return None
            delta = whole(name.removesuffix(".weight"))
            if isinstance(delta, Factors):
                delta = delta._replace(A=delta.A.double(), B=delta.B.double()).delta()
            return delta.T if layer.fan_in_fan_out else delta

        return lambda plain: exact

    def differing(plain: Mapping[str, Tensor]) -> Change:
        def difference(name: str) -> Tensor | None:
            before = base[name].to(plain[name])
            return None if torch.equal(before, plain[name]) else plain[name].double() - before

        return difference

    return differing


def parameters(model: Any) -> dict[str, Tensor]:
    """A plain model's parameters by every name that they have, also where two are one."""
    return dict(model.named_parameters(remove_duplicate=False))


def rounded(model: Any, dtype: torch.dtype) -> Any:
    """The model with its parameters in this dtype, but for those that Transformers reads in fp32.

    Buffers stay as they are: what is computed from the configuration is so wherever it is read.
    """
    kept = [*(getattr(model, "_keep_in_fp32_modules_strict", None) or ())]
    if dtype == torch.float16:
        kept += getattr(model, "_keep_in_fp32_modules", None) or ()
    patterns = [re.compile(rf"(^|\.){name}(\.|$)") for name in kept]
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not any(p.search(name) for p in patterns):
            parameter.data = parameter.data.to(dtype)
    return model


def beyond(model: Any) -> str | None:
    """The name of a parameter that holds more than its numbers can say; None if there is none."""
    named = model.named_parameters()
    return next((name for name, p in named if not bool(p.isfinite().all())), None)


@torch.inference_mode()
def logits(model: Any, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """The logits of the token after each prompt, (V,) in fp32."""
    model.eval()
    return list(_logits(model, prompts))


def _logits(model: Any, prompts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    config = model.config
    for prompt in prompts:
        given: dict[str, Tensor] = {"input_ids": torch.tensor([prompt], device=model.device)}
        if config.is_encoder_decoder:
            first = config.decoder_start_token_id
            given["decoder_input_ids"] = torch.tensor([[first]], device=model.device)
        yield model(**given).logits[0, -1].float()


@dataclass(frozen=True)
class Answered:
    """How the written model answers held-out inputs beside the trained one."""

    inputs: int
    divergence: float
    """Mean KL divergence of the written from the trained one, next token, in nats."""
    largest: float
    """The largest difference of two logits."""
    same: int
    """Of how many the most likely token is the same."""


def compared(trained: Sequence[Tensor], written: Sequence[Tensor]) -> Answered:
    """Logits of the trained model beside those of the written one, input by input."""
    pairs = [(one.double(), other.double()) for one, other in zip(trained, written, strict=True)]
    divergences = [
        float((one.softmax(0) * (one.log_softmax(0) - other.log_softmax(0))).sum())
        for one, other in pairs
    ]
    return Answered(
        inputs=len(pairs),
        divergence=sum(divergences) / max(len(pairs), 1),
        largest=max((float((one - other).abs().max()) for one, other in pairs), default=0.0),
        same=sum(int(one.argmax()) == int(other.argmax()) for one, other in pairs),
    )
