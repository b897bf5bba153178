"""From an example to token ids: the prompt, cut where it must be, and the answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nlora.data.prompts import ANSWER, Prompter
from nlora.data.task import Example, Task
from nlora.errors import NloraError

_FIELD = re.compile(r"^[A-Za-z][\w ]{0,30}:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example.

    `prompt` is what the model reads; `answer` is the answer with its end token, the only tokens
    that count in the loss. `truncated` tells whether the text had to be cut. `task` is its name.
    """

    prompt: list[int]
    answer: list[int]
    truncated: bool
    task: str = ""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def share_out(lengths: Sequence[int], budget: int) -> list[int]:
    """How much of each field stays when all of them together may have `budget` tokens.

    The longest field gives way first, until the next longest is as long, and so on.

    >>> share_out([50, 6, 4], 30)
    [20, 6, 4]
    >>> share_out([50, 40, 4], 30)
    [13, 13, 4]
    """
    kept = [0] * len(lengths)
    left = budget
    for rank, i in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        kept[i] = min(lengths[i], left // (len(lengths) - rank))
        left -= kept[i]
    return kept


class Encoder:
    """Encodes examples for one tokenizer and one prompt form.

    `max_length` bounds the prompt, in tokens; `max_text_tokens` bounds the text alone. What is too
    long loses the end of its longest field (MultiRC has its question and candidate answer after a
    long paragraph); the instruction, the options and "Answer:" always stay.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompter: Prompter,
        encoder_decoder: bool,
        max_length: int = 512,
        max_text_tokens: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompter = prompter
        self.encoder_decoder = encoder_decoder
        self.max_length = max_length
        self.max_text_tokens = max_text_tokens
        self.answer_ids = lru_cache(maxsize=4096)(self._answer_ids)
        self._overhead = lru_cache(maxsize=None)(self._count_overhead)
        if tokenizer.eos_token_id is None:
            raise NloraError("the model's tokenizer has no end token, so an answer could not end")

    def __call__(self, example: Example) -> Encoded:
        """The example's token ids. Raises NloraError if the instruction alone is too long."""
        ids, truncated = self.prompt_ids(example.task, example.text)
        return Encoded(ids, list(self.answer_ids(example.label)), truncated, example.task.name)

    def prompt_ids(self, task: Task, text: str) -> tuple[list[int], bool]:
        """Token ids of the prompt, at most `max_length`, and whether the text was cut for it."""
        prompt, truncated = self.fit(task, text)
        return self._tokenize(prompt), truncated

    def fit(self, task: Task, text: str) -> tuple[str, bool]:
        """The prompt as text, at most `max_length` tokens, and whether the text was cut."""
        room = self.max_length - self._overhead(task)
        if room <= 0:
            raise NloraError(
                f"task '{task.name}': instruction and options alone take {self._overhead(task)} "
                f"tokens, max_length is {self.max_length}; set a larger max_length"
            )
        budget = room if self.max_text_tokens is None else min(room, self.max_text_tokens)
        cut = self._cut(text, budget)
        # Tokens can merge differently at the seams, so the count is checked and not assumed.
        while (excess := self._excess(task, cut)) > 0 and budget > 0:
            budget -= excess
            cut = self._cut(text, max(budget, 0))
        return self.prompter.prompt(task, cut), cut != text

    def _excess(self, task: Task, text: str) -> int:
        return len(self._tokenize(self.prompter.prompt(task, text))) - self.max_length

    def _count_overhead(self, task: Task) -> int:
        return len(self._tokenize(self.prompter.prompt(task, "")))

    def _tokenize(self, prompt: str) -> list[int]:
        ids = list(self.tokenizer(prompt, add_special_tokens=not self.prompter.chat).input_ids)
        if not self.encoder_decoder and ids and ids[-1] == self.tokenizer.eos_token_id:
            # Some tokenizers of decoder-only models end every text; a prompt is to be continued.
            # A chat template's own last token is never the end token of the answer's turn.
            ids.pop()
        return ids

    def _cut(self, text: str, budget: int) -> str:
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets: list[tuple[int, int]] = encoding["offset_mapping"]
        if len(offsets) <= budget:
            return text
        starts = [m.start() for m in _FIELD.finditer(text)]
        starts = starts if starts and starts[0] == 0 else [0, *starts]
        stops = [*starts[1:], len(text)]
        fields = [
            [end for begin, end in offsets if start <= begin < stop]
            for start, stop in zip(starts, stops, strict=True)
        ]
        kept = share_out([len(ends) for ends in fields], budget)
        parts = []
        for start, stop, ends, count in zip(starts, stops, fields, kept, strict=True):
            if count == len(ends):
                parts.append(text[start:stop])
            else:
                parts.append(text[start : ends[count - 1]] + "\n" if count else "")
        return "".join(parts).rstrip("\n")

    def _answer_ids(self, label: str) -> tuple[int, ...]:
        if self.encoder_decoder:
            ids = self.tokenizer(text_target=label, add_special_tokens=False).input_ids
        else:
            # Tokens of the answer as it stands behind the prompt: with the space before it.
            context = self.prompter.prompt(Task(""), "") if self.prompter.chat else ANSWER.strip()
            answer = self.prompter.gap + label
            before = self.tokenizer(context, add_special_tokens=False).input_ids
            both = self.tokenizer(context + answer, add_special_tokens=False).input_ids
            seamless = both[: len(before)] == before
            ids = (
                both[len(before) :]
                if seamless
                else self.tokenizer(answer, add_special_tokens=False).input_ids
            )
        return (*ids, self.tokenizer.eos_token_id)
