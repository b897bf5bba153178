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
from transformers import DynamicCache, EncoderDecoderCache

from nlora import processes
from nlora.backbones.structure import accepts, base_model, wrappers
from nlora.data.batches import IGNORED, Collator, by_budget, on_device, pad
from nlora.data.encode import Encoded, Encoder
from nlora.data.task import Example
from nlora.evaluation.greedy import prompt_batches
from nlora.fast.attention import NAME
from nlora.fast.logits import answer_logits
from nlora.fast.prefix import continuing, why_not

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

    `batch_tokens` bounds rows × longest row. Of several processes each reads its share, and all get
    all numbers. The model is put into evaluation mode.
    """
    model.eval()
    found: dict[int, list[float]] = {}
    lists = dict.fromkeys((e.task.labels, e.task.chat) for e in examples)
    score = _scorer(model)
    with torch.inference_mode():
        for labels, chat in lists:
            mine = [
                i for i, e in enumerate(examples) if (e.task.labels, e.task.chat) == (labels, chat)
            ]
            prompts = [ids for ids, _ in encoder.prompts([examples[i] for i in mine])]
            answers = [list(encoder.answer_ids(label, chat)) for label in labels or ()]
            for rows, scores in score(model, encoder, prompts, answers, batch_tokens):
                found.update(zip([mine[row] for row in rows], scores.tolist(), strict=True))
                advance(len(rows))
    elsewhere = len(examples) - len(found)
    found = processes.united(found)
    advance(elsewhere)
    return [found[i] for i in range(len(examples))]


def _scorer(model: Any) -> Callable[..., Scored]:
    base = base_model(model)
    if any(getattr(wrapper, "prompted", False) for wrapper in wrappers(model)):
        return _whole
    if base.config.is_encoder_decoder:
        return _by_encoder if base.config.model_type in ("t5", "mt5", "umt5") else _whole
    exchangeable = base.config._attn_implementation in (NAME, "sdpa", "eager")
    if why_not(model) or not exchangeable or not accepts(type(base), "position_ids"):
        return _whole
    return _by_trie


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
        for answer in answers:
            path = [0]
            for end in range(1, len(answer)):
                beginning = tuple(answer[:end])
                if beginning not in known:
                    known[beginning] = len(self.parents)
                    self.parents.append(path[-1])
                    self.depths.append(end)
                    self.tokens.append(answer[end - 1])
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


def _by_trie(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    batch_tokens: int,
) -> Scored:
    base, trie = base_model(model), Trie(answers)
    device, sees = model.device, trie.sees().to(model.device)
    tokens = torch.tensor(trie.tokens[1:], dtype=torch.long, device=device)
    depths = torch.tensor(trie.depths[1:], dtype=torch.long, device=device)
    for rows, inputs, cache in prompt_batches(model, encoder, prompts, batch_tokens):
        more = {}
        if accepts(type(base), "logits_to_keep"):
            last = inputs["input_ids"].shape[1] - 1
            more["logits_to_keep"] = torch.tensor([last], device=device)
        logits = model(**inputs, **more, **continuing(model, cache)).logits[:, -1:]
        if len(tokens):
            read = inputs["attention_mask"].bool()[:, None].expand(-1, len(tokens), -1)
            seen = torch.cat([read, sees.expand(len(rows), -1, -1)], dim=2)[:, None]
            mask = torch.zeros(seen.shape, dtype=base.dtype, device=device)
            mask.masked_fill_(~seen, torch.finfo(base.dtype).min)
            after = model(
                input_ids=tokens.expand(len(rows), -1),
                attention_mask=mask,
                position_ids=inputs["position_ids"][:, -1:] + depths,
                **continuing(model, cache),
            ).logits
            logits = torch.cat([logits, after], dim=1)
        yield rows, _sums(logits, trie.paths, answers)


def _by_encoder(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    batch_tokens: int,
) -> Scored:
    base, padding = base_model(model), encoder.tokenizer.pad_token_id
    collator = Collator(padding, encoder_decoder=True)
    beginnings = pad([answer[:-1] for answer in answers], padding, left=False).to(model.device)
    longest = beginnings.shape[1]
    for rows in processes.share(by_budget([len(p) for p in prompts], batch_tokens)):
        batch = collator.prompts([prompts[i] for i in rows])
        batch = on_device(batch, model.device)
        mask = batch["attention_mask"]
        read = base.get_encoder()(**batch)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = torch.full((len(rows), 1), base.config.decoder_start_token_id, device=model.device)
        going_on = {"past_key_values": cache, "use_cache": True}
        first = model(
            encoder_outputs=read, attention_mask=mask, decoder_input_ids=start, **going_on
        ).logits
        first = first[:, None].expand(-1, len(answers), -1, -1)  # (rows, labels, 1, vocabulary)
        logits = first
        if longest:
            cache.batch_repeat_interleave(len(answers))
            hidden = read.last_hidden_state.repeat_interleave(len(answers), 0)
            after = model(
                encoder_outputs=(hidden,),
                attention_mask=mask.repeat_interleave(len(answers), 0),
                decoder_input_ids=beginnings.repeat(len(rows), 1),
                **going_on,
            ).logits
            logits = torch.cat([first, after.unflatten(0, (len(rows), -1))], dim=2)
        columns = [
            _sums(logits[:, i], [range(len(answer))], [answer]) for i, answer in enumerate(answers)
        ]
        yield rows, torch.cat(columns, dim=1)


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
    for rows in processes.share(by_budget(lengths, batch_tokens)):
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
