"""The loss of answers, by the settings `loss` and `rehearsal`: a divergence at each answer token.

At an answer token the task's labels allow some tokens next: those with which a label goes on after
what stands there already (the end token where one is complete). With z the logits and q what the
token should be,

    loss = Σ_t q_t · (ln q_t − ln p_t),   p = softmax of z over N

vocabulary      N is the whole vocabulary (the usual loss)
among-labels    N are the tokens that the labels allow: what is learned is which label, and nothing
                of what no label says

q is 1 for the right token. With rehearsal=soft, of an answer of the model's own, it is what the
model thought then: with P its probabilities of the labels, q_t = Σ P of the labels that go on with
t / Σ P of those that fit so far. Summed along an answer drawn from P this is on average the whole
divergence between P and the labels' probabilities now: the drawn answer alone is on average the
same but for a constant, and scatters more.

Tasks of free text, and answers that are none of their task's labels, have the usual loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from nlora.data.encode import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.data.task import Example
    from nlora.methods.context import Batch, Context
    from nlora.methods.settings import Settings
    from nlora.methods.state import Rehearsal

Branches = dict[tuple[int, ...], dict[int, tuple[int, ...]]]
"""By what stands there already: each token that is allowed next, with the labels that go on so."""


class Place(NamedTuple):
    """What an answer token should be: probabilities of some tokens, which may be all of N."""

    tokens: Sequence[int]
    wanted: Sequence[float]
    among: bool
    """Whether N are these tokens."""


@lru_cache(maxsize=256)
def branches(answers: tuple[tuple[int, ...], ...]) -> Branches:
    """What some labels, as token ids with their ends, allow after each beginning.

    >>> branches(((5, 1), (5, 7, 1)))
    {(): {5: (0, 1)}, (5,): {1: (0,), 7: (1,)}, (5, 7): {1: (1,)}}
    """
    found: Branches = {}
    for number, ids in enumerate(answers):
        for end, token in enumerate(ids):
            allowed = found.setdefault(ids[:end], {})
            allowed[token] = (*allowed.get(token, ()), number)
    return found


def answer_loss(
    settings: Settings,
    kept: Rehearsal,
    ctx: Context,
    batch: Batch,
    logits: Tensor,
    targets: Tensor,
) -> Tensor:
    """The summed loss of a batch whose answer tokens (n,) have these logits (n, vocabulary)."""
    from torch.nn.functional import cross_entropy

    among = settings.loss == "among-labels"
    rows = batch["index"].tolist() if among or settings.rehearsal == "soft" else []
    thought = [_thought(kept, ctx, row) if settings.rehearsal == "soft" else None for row in rows]
    if not among and not any(thought):
        return cross_entropy(logits.float(), targets, reduction="sum")
    counts = (batch["labels"] != IGNORED).sum(1).tolist()
    places = [
        place
        for row, likely, said in zip(rows, thought, targets.split(counts), strict=True)
        for place in _places(ctx, ctx.examples[row], said.tolist(), likely, among)
    ]
    return divergence(logits, places)


def _thought(kept: Rehearsal, ctx: Context, row: int) -> list[float] | None:
    """What the model thought of the labels, where a row is an answer of its own."""
    example = ctx.examples[row]
    likely = kept.probabilities.get(example.task.name)
    texts = kept.asked(example.task.name)
    if row < ctx.own or likely is None or example.text not in texts:
        return None
    return likely[texts.index(example.text)].tolist()


def _places(
    ctx: Context, example: Example, said: Sequence[int], likely: list[float] | None, among: bool
) -> list[Place]:
    """What each token of an answer should be."""
    task = example.task
    plain = [Place((token,), (1.0,), False) for token in said]
    if task.labels is None:
        return plain
    allowed = branches(tuple(ctx.encoder.answer_ids(label, task.chat) for label in task.labels))
    found = []
    for end, token in enumerate(said):
        nexts = allowed.get(tuple(said[:end]), {})
        if token not in nexts:
            return plain
        weights = [float(t == token) for t in nexts]
        if likely is not None:
            masses = [sum(likely[label] for label in labels) for labels in nexts.values()]
            whole = sum(masses)
            weights = [mass / whole for mass in masses] if whole > 0 else weights
        found.append(Place(tuple(nexts), weights, among))
    return found


def divergence(logits: Tensor, places: Sequence[Place]) -> Tensor:
    """Σ over places of Σ_t q_t·(ln q_t − ln p_t), of logits (n, vocabulary)."""
    import torch

    from nlora.data.batches import pad

    if not places:  # a process without examples of its own takes part with a row of none
        return logits.float().sum() * 0.0
    device = logits.device
    tokens = pad([place.tokens for place in places], 0, left=False).to(device)  # (n, most)
    sizes = torch.tensor([len(place.tokens) for place in places], device=device)
    there = torch.arange(tokens.shape[1], device=device) < sizes[:, None]
    wanted = torch.zeros(tokens.shape, device=device)
    wanted[there] = torch.tensor([q for p in places for q in p.wanted], device=device)
    logits = logits.float()
    chosen = logits.gather(1, tokens)
    among = torch.tensor([place.among for place in places], device=device)
    total = chosen.masked_fill(~there, float("-inf")).logsumexp(1)
    if not bool(among.all()):
        total = torch.where(among, total, logits.logsumexp(1))
    entropy = torch.special.entr(wanted).sum()
    return (wanted * (total[:, None] - chosen)).sum() - entropy
