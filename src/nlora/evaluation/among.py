"""How likely each label of a task is as the answer to a prompt, exactly.

A label's log-likelihood is the sum over its tokens and the end token, as `Context.score` computes
it. Decoder-only models with a plain cache read each prompt once, and after it a trie of the labels:
what several labels begin with is read once, and each token attends to those before it in its own
labels. T5's kind reads each prompt once, and the labels as rows that share it. All other models
read prompt and label together.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nlora import processes
from nlora.backbones.structure import accepts, base_model, wrappers
from nlora.data.batches import IGNORED, Collator, by_budget, on_device, pad
from nlora.data.encode import Encoded, Encoder
from nlora.data.task import Example
from nlora.evaluation.answers import Prediction, answer
from nlora.evaluation.reading import (
    EncoderRead,
    Read,
    encoded,
    has_encoder,
    narrowed,
    of_rows,
    read,
)
from nlora.fast.attention import NAME
from nlora.fast.logits import answer_logits
from nlora.fast.packing import reads_by_mask
from nlora.fast.prefix import continuing, why_not, why_not_after

Scored = Iterator[tuple[list[int], Tensor]]
"""Indices of prompts, and ln p (rows, labels) in fp64, batch by batch."""


def log_likelihoods(
    model: Any,
    encoder: Encoder,
    examples: Sequence[Example],
    batch_tokens: int = 2048,
    advance: Callable[[int], None] = lambda count: None,
) -> list[list[float]]:
    """ln p(label | prompt) for each example and each label of its task, which must have labels.

    `batch_tokens` bounds rows × longest row, also where rows are told apart by label. Of several
    processes each reads its share, and all get all numbers. The model is put into evaluation mode.
    """
    model.eval()
    found: dict[int, list[float]] = {}
    lists = dict.fromkeys((e.task.labels, e.task.chat) for e in examples)
    with torch.inference_mode():
        for labels, chat in lists:
            mine = [
                i for i, e in enumerate(examples) if (e.task.labels, e.task.chat) == (labels, chat)
            ]
            prompts = [ids for ids, _ in encoder.prompts([examples[i] for i in mine])]
            answers = [list(encoder.answer_ids(label, chat)) for label in labels or ()]
            for rows, scores in _scored(model, encoder, prompts, answers, batch_tokens):
                found.update(zip([mine[row] for row in rows], scores.tolist(), strict=True))
                advance(len(rows))
    elsewhere = len(examples) - len(found)
    found = processes.united(found)
    advance(elsewhere)
    return [found[i] for i in range(len(examples))]


def reads_once(model: Any) -> bool:
    """Whether the model can read a prompt once for all labels, and for its greedy answer."""
    return _following(model, [[0]], 1) is not None


def answers_and_log_likelihoods(
    model: Any,
    encoder: Encoder,
    examples: Sequence[Example],
    batch_tokens: int = 2048,
    **options: Any,
) -> list[tuple[Prediction, list[float]]]:
    """What `answer` (which has the options) and `log_likelihoods` say to examples with one list of
    labels; where it can be, each prompt is read once for both."""
    task = examples[0].task
    answers = [list(encoder.answer_ids(label, task.chat)) for label in task.labels or ()]
    follow = _following(model, answers, batch_tokens)
    if follow is None:
        given = answer(model, encoder, examples, batch_tokens=batch_tokens, **options)
        return list(
            zip(given, log_likelihoods(model, encoder, examples, batch_tokens), strict=True)
        )
    found: dict[int, list[float]] = {}

    def seen(batch: Any) -> None:
        found.update(zip(batch.rows, follow(batch).tolist(), strict=True))

    given = answer(model, encoder, examples, batch_tokens=batch_tokens, seen=seen, **options)
    found = processes.united(found)
    return [(said, found[i]) for i, said in enumerate(given)]


def _scored(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    batch_tokens: int,
) -> Scored:
    follow = _following(model, answers, batch_tokens, gated=True)
    if follow is None:
        yield from _whole(model, encoder, prompts, answers, batch_tokens)
        return
    batches = encoded if encoder.encoder_decoder else read
    for batch in batches(model, encoder, prompts, batch_tokens):
        yield batch.rows, follow(batch)


def _following(
    model: Any, answers: Sequence[list[int]], batch_tokens: int, gated: bool = False
) -> Callable[[Any], Tensor] | None:
    """ln p (rows, answers) that the answers follow prompts that were read; None if this model must
    read prompt and answer together.

    Also with gates by the prompt, if `gated`: nothing but the answers goes on after it then.
    """
    base = base_model(model)
    if has_encoder(model):
        return _AfterEncoder(model, answers, batch_tokens)
    exchangeable = base.config._attn_implementation in (NAME, "sdpa", "eager")
    gates = gated and any(hasattr(wrapper, "narrowed") for wrapper in wrappers(model))
    reason = why_not_after(model) if gates else why_not(model)
    if reason or not exchangeable or not accepts(type(base), "position_ids"):
        return None
    if not reads_by_mask(base):  # as that of the trie is
        return None
    return _AfterPrompt(model, answers, batch_tokens)


class Trie:
    """The beginnings of some token lists, each once; node 0 is the empty one.

    Only beginnings after which something follows are nodes, so the last token of a list is none.
    """

    def __init__(self, answers: Sequence[list[int]]) -> None:
        self.parents = [-1]
        self.depths = [0]
        self.tokens = [-1]
        self.paths: list[list[int]] = []
        """The nodes after which the tokens of each list come."""
        known: dict[tuple[int, ...], int] = {(): 0}
        for ids in answers:
            path = [0]
            for end in range(1, len(ids)):
                beginning = tuple(ids[:end])
                if beginning not in known:
                    known[beginning] = len(self.parents)
                    self.parents.append(path[-1])
                    self.depths.append(end)
                    self.tokens.append(ids[end - 1])
                path.append(known[beginning])
            self.paths.append(path)

    def sees(self) -> Tensor:
        """Which of nodes 1, 2, … each of them reads: itself and what it begins with, (N, N)."""
        count = len(self.parents) - 1
        seen = torch.zeros(count, count, dtype=torch.bool)
        for node in range(1, count + 1):
            if self.parents[node]:
                seen[node - 1] = seen[self.parents[node] - 1]
            seen[node - 1, node - 1] = True
        return seen


class _AfterPrompt:
    """Reads a trie of the answers after prompts in a cache, which stays as it is."""

    def __init__(self, model: Any, answers: Sequence[list[int]], batch_tokens: int) -> None:
        self.model = model
        self.answers = answers
        self.batch_tokens = batch_tokens
        trie = Trie(answers)
        self.paths = trie.paths
        self.sees = trie.sees().to(model.device)
        self.tokens = torch.tensor(trie.tokens[1:], dtype=torch.long, device=model.device)
        self.depths = torch.tensor(trie.depths[1:], dtype=torch.long, device=model.device)

    def __call__(self, batch: Read) -> Tensor:
        nodes = len(self.tokens)
        if not nodes:
            return _sums(batch.logits, self.paths, self.answers)
        rows = max(self.batch_tokens // nodes, 1)
        parts = [self._part(batch, slice(i, i + rows)) for i in range(0, len(batch.rows), rows)]
        return torch.cat(parts)

    def _part(self, batch: Read, rows: slice) -> Tensor:
        first, mask = batch.logits[rows], batch.inputs["attention_mask"][rows]
        count, nodes, dtype = len(first), len(self.tokens), base_model(self.model).dtype
        seen = torch.cat(
            [
                mask.bool()[:, None].expand(-1, nodes, -1),
                self.sees.expand(count, -1, -1),
            ],
            dim=2,
        )[:, None]
        hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        hidden.masked_fill_(~seen, torch.finfo(dtype).min)
        with narrowed(self.model, rows):
            after = self.model(
                input_ids=self.tokens.expand(count, -1),
                attention_mask=hidden,
                position_ids=batch.inputs["position_ids"][rows, -1:] + self.depths,
                **continuing(self.model, of_rows(batch.cache, rows)),
            ).logits
        return _sums(torch.cat([first, after], dim=1), self.paths, self.answers)


class _AfterEncoder:
    """Reads answers after prompts that a model of T5's kind has read; its cache stays as it is."""

    def __init__(self, model: Any, answers: Sequence[list[int]], batch_tokens: int) -> None:
        self.model = model
        self.answers = answers
        self.batch_tokens = batch_tokens
        device = model.device
        self.beginnings = pad([answer[:-1] for answer in answers], 0, left=False).to(device)
        self.targets = pad(answers, 0, left=False).to(device)
        counts = torch.tensor([len(answer) for answer in answers], device=device)
        self.counted = torch.arange(self.targets.shape[1], device=device) < counts[:, None]

    def __call__(self, batch: EncoderRead) -> Tensor:
        rows, labels = len(batch.rows), len(self.answers)
        longest = self.targets.shape[1]
        together = max(self.batch_tokens // max(batch.mask.shape[1], longest), 1)
        sums = []
        for pairs in torch.arange(rows * labels, device=batch.mask.device).split(together):
            row, label = pairs // labels, pairs % labels
            logits = batch.logits[row]
            if longest > 1:
                after = batch.of(row).follow(self.model, self.beginnings[label])
                logits = torch.cat([logits, after], dim=1)
            logits = logits.float()
            said = logits.gather(2, self.targets[label][..., None])[..., 0]
            each = (said - logits.logsumexp(-1)).double()
            sums.append(each.masked_fill(~self.counted[label], 0.0).sum(1))
        return torch.cat(sums).view(rows, labels)


def _whole(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    batch_tokens: int,
) -> Scored:
    collator = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder)
    longest = max(map(len, answers))
    lengths = [len(answers) * (len(p) + longest) for p in prompts]
    for rows in processes.share_of_passes(by_budget(lengths, batch_tokens)):
        pairs = [Encoded(prompts[i], answer, False) for i in rows for answer in answers]
        batch = on_device(collator(pairs), model.device)
        logits, targets = answer_logits(model, batch)
        each = -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        counts = (batch["labels"] != IGNORED).sum(1).tolist()
        sums = torch.stack([part.double().sum() for part in each.split(counts)])
        yield rows, sums.view(len(rows), len(answers))


def _sums(logits: Tensor, paths: Sequence[Sequence[int]], answers: Sequence[list[int]]) -> Tensor:
    """Σ ln p of each answer (rows, answers), its tokens said after the nodes of its path.

    `logits` are (rows, nodes, vocabulary).
    """
    logits = logits.float()
    totals = logits.logsumexp(-1)
    sums = [
        (logits[:, list(path), answer] - totals[:, list(path)]).double().sum(1)
        for path, answer in zip(paths, answers, strict=True)
    ]
    return torch.stack(sums, dim=1)
