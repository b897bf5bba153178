"""The diagonal of the Fisher information: which parameters the answers to a task depend on.

For parameters θ and examples (x, y), with an answer y of several tokens,

    F_j = mean over examples of (∂ log p(y|x; θ) / ∂θ_j)²,  log p(y|x) = Σ_t log p(y_t|x, y_<t)

The square is taken of each example's own gradient: that of a batch's mean gradient is something
else, and smaller. So the plain way is one backward pass per example. Where all parameters are
matrices of linear layers, as those of LoRA are, a batch has each matrix once per row instead, and
autograd keeps the rows' gradients apart: the same numbers from a fraction of the passes. No more
than the gradients of one batch are held at a time.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import cross_entropy

from nlora import processes
from nlora.data.encode import Encoded
from nlora.fast.logits import answer_logits
from nlora.methods.context import Context

BATCH_TOKENS = 1024
"""Rows × longest row of a batch: about two examples of the greatest length."""


def diagonal_fisher(
    ctx: Context, parameters: Sequence[Parameter], examples: Sequence[Encoded]
) -> list[Tensor]:
    """F of every parameter, of its shape, in fp32.

    The model is put into evaluation mode. Of several processes each takes its share of the
    examples; all get the same F.
    """
    model = ctx.model.eval()
    model.zero_grad()
    squares = {p: torch.zeros_like(p, dtype=torch.float32) for p in parameters}
    layers = _matrices(model, parameters)
    tokens = BATCH_TOKENS if layers else 1
    for rows, batch in ctx.batches(examples, tokens, share=True):
        if len(rows) == 1 or not _add_rows(model, layers, batch, squares):
            for _, one in ctx.batches([examples[i] for i in rows], tokens=1):
                _add_one(model, one, squares)
        ctx.progress.advance(len(rows) * processes.count())
    return [processes.summed_passes(square) / len(examples) for square in squares.values()]


def _loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """−Σ log p of the answers, whose gradient has the same square."""
    logits, targets = answer_logits(model, batch)
    return cross_entropy(logits.float(), targets, reduction="sum")


def _add_one(model: Any, batch: dict[str, Tensor], squares: dict[Parameter, Tensor]) -> None:
    """Add the squared gradient of one example; each is dropped as soon as it is squared."""

    def square(parameter: Tensor) -> None:
        assert isinstance(parameter, Parameter)
        assert parameter.grad is not None
        gradient = parameter.grad.float()
        squares[parameter].addcmul_(gradient, gradient)
        parameter.grad = None

    with ExitStack() as hooks:
        for parameter in squares:
            hooks.callback(parameter.register_post_accumulate_grad_hook(square).remove)
        _loss(model, batch).backward()


def _matrices(model: nn.Module, parameters: Sequence[Parameter]) -> dict[nn.Module, Parameter]:
    """The linear layers whose weights these are; empty if some are anything else."""
    wanted = set(parameters)
    layers: dict[nn.Module, Parameter] = {
        module: module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear)
        and isinstance(module.weight, Parameter)
        and module.weight in wanted
    }
    return layers if len(layers) == len(wanted) == len(set(layers.values())) else {}


def _add_rows(
    model: Any,
    layers: dict[nn.Module, Parameter],
    batch: dict[str, Tensor],
    squares: dict[Parameter, Tensor],
) -> bool:
    """Add the squared gradients of every row of a batch.

    False, and nothing added, if a layer does not see the rows (B, T, in) apart: some models hand
    all tokens of a batch to it as one list.
    """
    count = len(batch["labels"])
    copies = {
        layer: weight.detach().expand(count, -1, -1).requires_grad_()  # (B, out, in), no memory
        for layer, weight in layers.items()
    }

    def own_copy(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        x = inputs[0]
        if x.ndim != 3 or len(x) != count:
            raise _NotApart
        return x @ copies[layer].mT  # (B, T, in) @ (B, in, out)

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_hook(own_copy).remove)
        try:
            loss = _loss(model, batch)
        except _NotApart:
            return False
    gradients = torch.autograd.grad(loss, list(copies.values()), allow_unused=True)
    for weight, gradient in zip(layers.values(), gradients, strict=True):
        if gradient is not None:
            squares[weight] += gradient.float().square().sum(0)
    return True


class _NotApart(Exception):
    """A layer sees the rows of a batch mixed."""
