"""LFPT5: one soft prompt that solves tasks and also writes examples of them, to rehearse.

"LFPT5: A Unified Framework for Lifelong Few-shot Language Learning Based on Prompt Tuning of T5"
(arXiv:2110.07298). The model stays frozen; one large prompt after the text, continued from task to
task, learns to answer an example and to write it: after 'Write an example of the task …' the model
shall say "text Answer: label". Before a new task it writes pseudo-samples of the earlier ones, and
those with a valid label are trained on, too. With the prompt as it was for a teacher on them,

    L = (1 − κ)(L_task + w·L_LM) + κ·KL(old ‖ new)

Each is a mean over answer tokens: L_task over all examples; L_LM over the text of each example,
which counts as its answer does; KL over the pseudo-samples' answers, on average over an epoch (the
published code sums it over a batch of 2).

Published: 300 vectors, started at the task's name, its labels (each the mean of its tokens'
embeddings) and frequent tokens, here of the task's texts; w 0.25; κ 0.01 (0.05 by default in the
code); top-k 64 sampling with repetition penalty 2.5; 2 pseudo-samples per class; Adafactor with
learning rate 0.5 and weight decay 1e-5. Its code keeps the best epoch by validation, draws the
prompt's words from the 5000 most frequent, and answers by beam search; here the last prompt counts,
its words are the most frequent, and answers are greedy. These belong to the LM-adapted T5 v1.1
large: a model with smaller embeddings needs a smaller learning rate. The published code samples
thousands of texts per task, here `candidates` says how many. No text of an earlier task is read.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nlora import processes
from nlora.data.comparing import comparison
from nlora.data.encode import IGNORED
from nlora.data.prompts import ANSWER
from nlora.data.task import Example, Task
from nlora.methods.base import Method, MixedIn, Settings, State
from nlora.progress import shown

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.data.encode import Encoder
    from nlora.methods.context import Batch, Context, Stage

log = logging.getLogger("nlora")

SEPARATOR = ANSWER.strip()
TOP_K = 64
REPETITION_PENALTY = 2.5
ROWS = 32
"""Texts that are sampled at once."""


class Lfpt5Settings(Settings):
    """The published hyper-parameters."""

    prompt_length: int = Field(300, gt=0, description="vectors of the prompt")
    lm_weight: float = Field(0.25, ge=0, description="w, the weight of writing examples")
    kl_weight: float = Field(
        0.01, ge=0, le=1, description="κ, the share of the KL to the old prompt on pseudo-samples"
    )
    pseudo_samples: int = Field(
        2, ge=0, description="per class of each earlier task, or in all where answers are free text"
    )
    candidates: int = Field(
        4, gt=0, description="texts to sample, at most, for each pseudo-sample that is wanted"
    )


@dataclass
class Lfpt5State(State):
    """What is kept of the tasks: no text."""

    learned: list[dict[str, Any]] = field(default_factory=list)
    """Of each task: `task` as JSON, and `longest`, the tokens of the longest example that the model
    was taught to write."""
    pseudo_samples: list[dict[str, Any]] = field(default_factory=list)
    """Those of the newest stage, to be looked at."""


class Lfpt5(Method):
    """One prompt, trained on the task and on what it writes of the earlier ones."""

    name = "lfpt5"
    summary = "one large soft prompt that also writes pseudo-samples of earlier tasks to rehearse"
    paper = "arXiv:2110.07298"
    continues = True
    Settings = Lfpt5Settings
    State = Lfpt5State
    settings: Lfpt5Settings
    state: Lfpt5State
    needs_previous = True

    @property
    def adapter(self) -> str:
        """Soft prompts."""
        return "prompt"

    def own_weight(self) -> str:
        """κ, of the distillation."""
        return "kl_weight"

    def run_defaults(self) -> dict[str, Any]:
        """The optimiser of the method's paper."""
        return {"optimizer": "adafactor", "learning_rate": 0.5, "weight_decay": 1e-5}

    def adapter_options(self) -> dict[str, Any]:
        """The prompt stands after the text."""
        from nlora.adapters.layouts import Appended

        return {"layout": Appended(self.settings.prompt_length)}

    def begin(self, ctx: Context) -> None:
        """Go on with the prompt; the first one starts at words of the task."""
        from nlora.adapters.prompt import Prompt

        super().begin(ctx)
        if not ctx.adapter.replaces:
            words = _words(ctx.encoder.tokenizer, ctx.stage, self.settings.prompt_length)
            ctx.adapter_as(Prompt).start_at(words)

    def mixed_in(self, ctx: Context) -> MixedIn:
        """Pseudo-samples of every earlier task, the same for the stage's seed."""
        earlier = self._earlier(ctx)
        tasks = [(Task.from_json(known["task"]), known["longest"]) for known in earlier]
        wanted = [self.settings.pseudo_samples * len(task.labels or [""]) for task, _ in tasks]
        found: list[Example] = []
        self.state.pseudo_samples = []
        if not sum(wanted):
            return MixedIn()
        import torch

        title = f"{ctx.stage.index} {ctx.stage.name}: pseudo-samples"
        with (
            shown(ctx.progress, title, self.settings.candidates * sum(wanted)),
            torch.random.fork_rng(),
        ):
            torch.manual_seed(ctx.stage.seed)
            for (task, longest), count in zip(tasks, wanted, strict=True):
                kept = self._pseudo_samples(ctx, task, longest, count)
                if len(kept) < count:
                    log.warning(
                        "stage '%s': only %d of %d pseudo-samples of task '%s' have a text and "
                        "a valid label",
                        ctx.stage.name,
                        len(kept),
                        count,
                        task.name,
                    )
                found += kept
        found = processes.from_main(found)
        self.state.pseudo_samples = [
            {"task": e.task.name, "text": e.text, "label": e.label} for e in found
        ]
        return MixedIn(found, what="pseudo-samples")

    def loss(self, ctx: Context, batch: Batch) -> dict[str, Tensor]:
        """Answering, writing, and the KL to the old prompt's answers to pseudo-samples."""
        import torch

        s = self.settings
        logits, targets = ctx.logits(batch)
        answers = (batch["labels"] != IGNORED).sum(1)  # (B,)
        task = self.answer_loss(ctx, batch, logits, targets)
        writing = self._writing(ctx, batch["index"], answers) / ctx.tokens
        divergence = logits.new_zeros((), dtype=torch.float32)
        first, end = self._pseudo(ctx)
        old = (batch["index"] >= first) & (batch["index"] < end)  # (B,)
        if old.any():
            now = logits[old.repeat_interleave(answers)]
            divergence = self._divergence(ctx, batch, old, now) / (ctx.tokens * self._share(ctx))
        return {
            "task": (1 - s.kl_weight) * task,
            "writing": (1 - s.kl_weight) * s.lm_weight * writing,
            "distillation": s.kl_weight * divergence,
        }

    def _writing(self, ctx: Context, index: Tensor, answers: Tensor) -> Tensor:
        """Σ over rows of answer tokens (B,) times the mean loss of the text to be written."""
        from torch.nn.functional import cross_entropy

        from nlora.data.batches import Collator, on_device

        encoder = ctx.encoder
        rows = encoder.all([written(encoder, ctx.examples[i]) for i in index.tolist()])
        collate = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder)
        batch = on_device(collate(rows), index.device)
        logits, targets = ctx.logits(batch)
        lengths = (batch["labels"] != IGNORED).sum(1)  # (B,)
        losses = cross_entropy(logits.float(), targets, reduction="none")
        return ((answers / lengths).repeat_interleave(lengths) * losses).sum()

    def _divergence(self, ctx: Context, batch: Batch, rows: Tensor, logits: Tensor) -> Tensor:
        """Σ KL(old ‖ new) over the answer tokens of some rows, which have these logits now."""
        import torch
        from torch.nn.functional import kl_div

        from nlora.backbones.states import evaluating

        chosen = {name: batch[name][rows] for name in ("input_ids", "attention_mask", "labels")}
        with torch.no_grad(), ctx.previous(), evaluating(ctx.network or ctx.model):
            old, _ = ctx.logits(chosen)
        now, before = logits.float().log_softmax(-1), old.float().log_softmax(-1)
        return kl_div(now, before, reduction="sum", log_target=True)

    def _pseudo_samples(self, ctx: Context, task: Task, longest: int, wanted: int) -> list[Example]:
        """Up to so many, each class with its share, of as many texts as may be sampled."""
        kept: list[Example] = []
        share = wanted // len(task.labels or [""])
        left = self.settings.candidates * wanted
        while left and len(kept) < wanted:
            count = min(ROWS, left)
            left -= count
            for text in sampled_texts(ctx, task, longest, count):
                example = read(task, text)
                if example is None or example in kept:
                    continue
                same = sum(task.labels is None or e.label == example.label for e in kept)
                if same < share:
                    kept.append(example)
            ctx.progress.advance(count)
        ctx.progress.advance(left)
        return kept

    def end(self, ctx: Context) -> None:
        """Keep what it takes to ask for pseudo-samples of the task."""
        longest: dict[Task, int] = {}
        for example in ctx.examples[: ctx.own]:
            [ids] = ctx.encoder.all([written(ctx.encoder, example)])
            longest[example.task] = max(longest.get(example.task, 0), len(ids.answer))
        mine = [{"task": task.to_json(), "longest": n} for task, n in longest.items()]
        self.state.learned = [*self._earlier(ctx), *mine]

    def _earlier(self, ctx: Context) -> list[dict[str, Any]]:
        """What is kept of the tasks that the stage does not learn, again or anew."""
        now = {data.name for data in ctx.stage.tasks}
        return [known for known in self.state.learned if known["task"]["name"] not in now]

    def _pseudo(self, ctx: Context) -> tuple[int, int]:
        """Which of the stage's examples are pseudo-samples; what is rehearsed stands behind."""
        return ctx.own, ctx.own + len(self.state.pseudo_samples)

    def _share(self, ctx: Context) -> float:
        """The pseudo-samples' share of the answer tokens of an epoch."""
        answers = [len(example.answer) for example in ctx.encoded]
        return sum(answers[slice(*self._pseudo(ctx))]) / sum(answers)


def writing_task(task: Task) -> Task:
    """The task of writing an example of a task."""
    instruction = f'Write an example of the task "{task.name}": text, "{SEPARATOR}" and answer.'
    return replace(task, instruction=instruction, labels=None)


def written(encoder: Encoder, example: Example) -> Example:
    """An example whose answer is another example, cut as the model reads it."""
    text = encoder.cut(example.task, example.text)
    return Example(writing_task(example.task), "", f"{text} {SEPARATOR} {example.label}")


def read(task: Task, text: str) -> Example | None:
    """The example that was written, or None if it has no text or no valid label."""
    text, _, answer = text.rpartition(SEPARATOR)
    text, answer = text.strip(), answer.strip()
    if task.labels is not None:
        form = comparison(task.labels)
        answer = next((label for label in task.labels if form(label) == form(answer)), "")
    return Example(task, text, answer) if text and answer else None


def sampled_texts(ctx: Context, task: Task, longest: int, count: int) -> list[str]:
    """What the model writes as examples of a task, of at most `longest` tokens."""
    prompt, _ = ctx.encoder.prompt_ids(writing_task(task), "")
    with warnings.catch_warnings():  # that the penalty does not count what was read, as it should
        warnings.filterwarnings("ignore", message="Passing `repetition_penalty`")
        return ctx.generate(
            [prompt] * count,
            max_new_tokens=longest,
            do_sample=True,
            num_beams=1,
            temperature=1.0,
            top_p=1.0,
            top_k=TOP_K,
            repetition_penalty=REPETITION_PENALTY,
        )


def _words(tokenizer: Any, stage: Stage, count: int) -> list[list[int]]:
    """Token ids of what the prompt starts at: names, labels, and the texts' frequent tokens."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    words = [ids(w) for data in stage.tasks for w in (data.name, *(data.task.labels or ()))]
    seen = Counter(i for data in stage.tasks for e in data.train for i in ids(e.text))
    return [*words, *([i] for i, _ in seen.most_common(count))][:count]
