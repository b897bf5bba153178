"""Whether a later stage's task pulled the weights where an earlier task would have them.

Before stage t the model has weights W_{t−1}. The gradients of two tasks there, each the mean over
some training examples of

    ∇_W −(1/|y|) Σ_s ln p(y_s | x, y_<s),  over the adapted matrices W,

point the same way (cosine 1) where a step on the new task lowers the loss on the old one, too, and
against each other (−1) where it raises it: to first order a step of size η on the new task changes
the old one's loss by −η⟨g_old, g_new⟩ (gradient episodic memory, arXiv 1706.08840, asks for it not
to be negative).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nlora.data.encode import IGNORED
from nlora.data.task import Example, digest, sample
from nlora.explain.asked import Learned
from nlora.explain.looks import Looks
from nlora.explain.texts import SEED
from nlora.fast.logits import answer_logits
from nlora.progress import shown
from nlora.store.kept import keep, kept

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel
    from nlora.methods.context import Context


def aligned(looks: Looks, tasks: Sequence[Learned], count: int) -> dict[str, dict[int, float]]:
    """By task and later stage, the cosine of the task's gradient and that of the stage's own tasks
    on the model before the stage, from `count` training examples of each.

    Tasks without training examples are left out, and all where adapted matrices are none that a
    gradient can be taken of (soft prompts, whole models, quantised weights).
    """
    known = [task for task in tasks if task.data.train]
    if not count or not _weights(looks.model):
        return {}
    pairs = {}
    for stage in sorted({task.stage for task in known}):
        new = [task for task in known if task.stage == stage]
        old = [task for task in known if task.stage < stage and task.later]
        if old:
            pairs[stage] = (new, old)
    found: dict[str, dict[int, float]] = {}
    for stage, (new, old) in pairs.items():
        for name, cosine in _kept(looks, stage, new, old, count).items():
            found.setdefault(name, {})[stage] = cosine
    return found


def _kept(
    looks: Looks, stage: int, new: Sequence[Learned], old: Sequence[Learned], count: int
) -> dict[str, float]:
    """The cosines of a stage by old task, from their file or measured."""
    asked = [[example.to_json() for example in _examples(some, count)] for some in (new, old)]
    key = digest([looks.made_of(stage - 1), asked])
    place = looks.place(stage - 1, new[0].data.name, f"gradients-{count}", ".json")
    if (known := kept(place, key)) is not None:
        return known
    with looks.model.standing(stage - 1), shown(looks.model.progress, "gradients", 1 + len(old)):
        cosines = _measured(looks.model, new, old, count)
    keep(place, key, cosines)
    return cosines


def _examples(tasks: Sequence[Learned], count: int) -> list[Example]:
    return [example for task in tasks for example in sample(task.data.train, count, SEED)]


def _measured(
    model: "ContinualModel", new: Sequence[Learned], old: Sequence[Learned], count: int
) -> dict[str, float]:
    ctx = model.context()
    with _differentiable(_weights(model)) as weights:
        towards = gradient(ctx, weights, _examples(new, count))
        ctx.progress.advance()
        found = {}
        for task in old:
            own = gradient(ctx, weights, _examples([task], count))
            found[task.data.name] = cosine(own, towards)
            ctx.progress.advance()
    return found


def gradient(
    ctx: "Context", weights: Mapping[str, Tensor], examples: Sequence[Example]
) -> dict[str, Tensor]:
    """The mean over examples of the gradient of the mean loss of an answer's tokens, by matrix, in
    the matrix' shape and fp32; without dropout."""
    sums = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    ctx.model.eval()
    for _, batch in ctx.batches(ctx.encoder.all(examples)):
        logits, targets = answer_logits(ctx.model, batch)
        lengths = (batch["labels"] != IGNORED).sum(1)
        each = cross_entropy(logits.float(), targets, reduction="none")
        loss = (each / lengths.repeat_interleave(lengths)).sum() / len(examples)
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for total, one in zip(sums.values(), gradients, strict=True):
            if one is not None:
                total += one
    return sums


def cosine(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """⟨one, other⟩ / (‖one‖ ‖other‖) over all matrices together; 0 where one of them is 0."""

    def product(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
        return sum(float((a[name] * b[name]).sum(dtype=torch.float64)) for name in a)

    norms = (product(one, one) * product(other, other)) ** 0.5
    return product(one, other) / norms if norms else 0.0


def _weights(model: "ContinualModel") -> dict[str, Tensor]:
    """The adapted matrices as the model multiplies by them; none where they are not numbers."""
    found: dict[str, Any] = {}
    matrices: dict[str, Any] = model.adapter.matrices()
    for name, module in matrices.items():
        layer = module.get_base_layer() if hasattr(module, "get_base_layer") else module
        weight: Any = getattr(layer, "weight", None)
        if weight is None or not weight.is_floating_point():
            return {}
        found[name] = weight
    return found


@contextmanager
def _differentiable(weights: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Weights that are frozen, with a gradient for as long."""
    frozen = [weight for weight in weights.values() if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        with torch.enable_grad():
            yield weights
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
