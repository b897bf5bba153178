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
learning rate 0.5 and weight decay 1e-5. These belong to the LM-adapted T5 v1.1 large: a model with
smaller embeddings needs a smaller learning rate. The published code samples thousands of texts per
task, here `candidates` says how many. No text of an earlier task is read.
"""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from nlora import processes
from nlora.carriers.layouts import Appended
from nlora.data.batches import IGNORED, Collator
from nlora.data.encode import Encoder
from nlora.data.examples import normalise
from nlora.data.prompts import ANSWER
from nlora.data.task import Example, Task
from nlora.methods.base import Learner, Method, Settings, Stage
from nlora.models.logits import answer_logits
from nlora.models.states import evaluating

log = logging.getLogger("nlora")

SEPARATOR = ANSWER.strip()
TOP_K = 64
REPETITION_PENALTY = 2.5
ROWS = 32
"""Texts that are sampled at once."""
FILE = "lfpt5.json"


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


@dataclass(frozen=True)
class Learned:
    """What is kept of a task: no text."""

    task: Task
    longest: int
    """Tokens of the longest example that the model was taught to write."""


class Lfpt5(Method):
    """One prompt, trained on the task and on what it writes of the earlier ones."""

    name = "lfpt5"
    summary = "one large soft prompt that also writes pseudo-samples of earlier tasks to rehearse"
    paper = "arXiv:2110.07298"
    continues = True
    Settings = Lfpt5Settings
    settings: Lfpt5Settings
    needs_previous = True

    def __init__(self, settings: Lfpt5Settings) -> None:
        super().__init__(settings)
        self.learned: list[Learned] = []
        self.pseudo: list[Example] = []

    @property
    def carrier(self) -> str:
        """Soft prompts."""
        return "prompt"

    def own_weight(self) -> str:
        """κ, of the distillation."""
        return "kl_weight"

    def run_defaults(self) -> dict[str, Any]:
        """The optimiser of the method's paper."""
        return {"optimizer": "adafactor", "learning_rate": 0.5, "weight_decay": 1e-5}

    def carrier_options(self) -> dict[str, Any]:
        """The prompt stands after the text."""
        return {"layout": Appended(self.settings.prompt_length)}

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Let the model write pseudo-samples, and go on with its prompt."""
        carrier, encoder = learner.carrier, learner.encoder
        self.pseudo = processes.from_main(self._rehearsal(learner, stage))
        carrier.begin(continued=True, keep_previous=True)
        if not carrier.replaces:
            carrier.start_at(_words(encoder.tokenizer, stage, self.settings.prompt_length))
        self.previous = carrier.previous
        self.collate = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder)

    def examples(self, learner: Learner, stage: Stage) -> Sequence[Example]:
        """The task's examples and the pseudo-samples."""
        own = super().examples(learner, stage)
        examples = [*own, *self.pseudo]
        self.written = [learner.encoder(written(learner.encoder, e)) for e in examples]
        answers = [len(learner.encoder.answer_ids(e.label)) for e in examples]
        self.first = len(own)  # of the pseudo-samples
        self.share = sum(answers[self.first :]) / sum(answers)  # of their answer tokens
        return examples

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], tokens: Tensor
    ) -> dict[str, Tensor]:
        """Answering, writing, and the KL to the old prompt's answers to pseudo-samples."""
        s = self.settings
        logits, targets = answer_logits(model, batch)
        answers = (batch["labels"] != IGNORED).sum(1)  # (B,)
        task = cross_entropy(logits.float(), targets, reduction="sum") / tokens
        writing = self._writing(model, batch["index"], answers) / tokens
        divergence = logits.new_zeros((), dtype=torch.float32)
        old = batch["index"] >= self.first  # (B,)
        if old.any():
            now = logits[old.repeat_interleave(answers)]
            divergence = self._divergence(model, batch, old, now) / (tokens * self.share)
        return {
            "task": (1 - s.kl_weight) * task,
            "writing": (1 - s.kl_weight) * s.lm_weight * writing,
            "distillation": s.kl_weight * divergence,
        }

    def _writing(self, model: nn.Module, index: Tensor, answers: Tensor) -> Tensor:
        """Σ over rows of answer tokens (B,) times the mean loss of the text to be written."""
        batch = self.collate([self.written[i] for i in index.tolist()])
        batch = {name: tensor.to(index.device) for name, tensor in batch.items()}
        logits, targets = answer_logits(model, batch)
        lengths = (batch["labels"] != IGNORED).sum(1)  # (B,)
        losses = cross_entropy(logits.float(), targets, reduction="none")
        return ((answers / lengths).repeat_interleave(lengths) * losses).sum()

    def _divergence(
        self, model: nn.Module, batch: Mapping[str, Tensor], rows: Tensor, logits: Tensor
    ) -> Tensor:
        """Σ KL(old ‖ new) over the answer tokens of some rows, which have these logits now."""
        chosen = {name: batch[name][rows] for name in ("input_ids", "attention_mask", "labels")}
        with torch.no_grad(), self.previous(), evaluating(model):
            old, _ = answer_logits(model, chosen)
        now, before = logits.float().log_softmax(-1), old.float().log_softmax(-1)
        return kl_div(now, before, reduction="sum", log_target=True)

    def _rehearsal(self, learner: Learner, stage: Stage) -> list[Example]:
        """Pseudo-samples of every earlier task, the same for the stage's seed."""
        s, found = self.settings, []
        wanted = [s.pseudo_samples * len(known.task.labels or [""]) for known in self.learned]
        if not sum(wanted):
            return found
        title = f"{stage.index} {stage.name}: pseudo-samples"
        learner.watcher.start(title, s.candidates * sum(wanted))
        try:
            with torch.random.fork_rng():
                torch.manual_seed(stage.seed)
                for known, count in zip(self.learned, wanted, strict=True):
                    kept = self._pseudo_samples(learner, known, count)
                    if len(kept) < count:
                        log.warning(
                            "stage '%s': only %d of %d pseudo-samples of task '%s' have a text and "
                            "a valid label",
                            stage.name,
                            len(kept),
                            count,
                            known.task.name,
                        )
                    found += kept
        finally:
            learner.watcher.finish()
        return found

    def _pseudo_samples(self, learner: Learner, known: Learned, wanted: int) -> list[Example]:
        """Up to so many, each class with its share, of as many texts as may be sampled."""
        kept: list[Example] = []
        share = wanted // len(known.task.labels or [""])
        left = self.settings.candidates * wanted
        while left and len(kept) < wanted:
            count = min(ROWS, left)
            left -= count
            for text in sampled_texts(learner, known, count):
                example = read(known.task, text)
                if example is None or example in kept:
                    continue
                same = sum(known.task.labels is None or e.label == example.label for e in kept)
                if same < share:
                    kept.append(example)
            learner.watcher.advance(count)
        learner.watcher.advance(left)
        return kept

    def end(self, learner: Learner, stage: Stage) -> None:
        """Keep what it takes to ask for pseudo-samples of the task."""
        longest: dict[Task, int] = {}
        for example, ids in zip(super().examples(learner, stage), self.written, strict=False):
            longest[example.task] = max(longest.get(example.task, 0), len(ids.answer))
        self.learned += [Learned(task, length) for task, length in longest.items()]

    def save(self, folder: Path) -> None:
        """The tasks so far; and the pseudo-samples of this stage, to be looked at."""
        state = {
            "learned": [{"task": k.task.to_json(), "longest": k.longest} for k in self.learned],
            "pseudo_samples": [
                {"task": e.task.name, "text": e.text, "label": e.label} for e in self.pseudo
            ],
        }
        (folder / FILE).write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """The tasks so far."""
        state = json.loads((folder / FILE).read_text(encoding="utf-8"))
        self.learned = [Learned(Task.from_json(k["task"]), k["longest"]) for k in state["learned"]]


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
        answer = next((label for label in task.labels if normalise(label) == normalise(answer)), "")
    return Example(task, text, answer) if text and answer else None


@torch.no_grad()
def sampled_texts(learner: Learner, known: Learned, count: int) -> Iterator[str]:
    """What the model writes as examples of a task. It is put into evaluation mode."""
    encoder, model = learner.encoder, learner.carrier.model.eval()
    tokenizer = encoder.tokenizer
    prompt, _ = encoder.prompt_ids(writing_task(known.task), "")
    ids = torch.tensor([prompt] * count, device=model.device)
    with warnings.catch_warnings():  # that the penalty does not count what was read, as it should
        warnings.filterwarnings("ignore", message="Passing `repetition_penalty`")
        rows = model.generate(
            ids,
            torch.ones_like(ids),
            max_new_tokens=known.longest,
            do_sample=True,
            num_beams=1,
            temperature=1.0,
            top_p=1.0,
            top_k=TOP_K,
            repetition_penalty=REPETITION_PENALTY,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    for row in rows if encoder.encoder_decoder else rows[:, len(prompt) :]:
        yield tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _words(tokenizer: Any, stage: Stage, count: int) -> list[list[int]]:
    """Token ids of what the prompt starts at: names, labels, and the texts' frequent tokens."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    words = [ids(w) for data in stage.tasks for w in (data.name, *(data.task.labels or ()))]
    seen = Counter(i for data in stage.tasks for e in data.train for i in ids(e.text))
    return [*words, *([i] for i, _ in seen.most_common(count))][:count]
