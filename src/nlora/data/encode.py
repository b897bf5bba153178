"""From an example to token ids: the prompt, cut where it must be, and the answer."""

import itertools
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from nlora.data.chat_ids import ChatIds
from nlora.data.cut import cut_fields
from nlora.data.prompts import Prompter
from nlora.data.task import Example, Task, digest
from nlora.errors import NloraError

IGNORED = -100
"""The label of a position that does not count in the loss."""
TOGETHER = 256
"""Texts that are tokenised at once."""
WORTH_KEEPING = 64
"""Texts from which on their token ids are kept on disk (`tokens`)."""
MOST_KNOWN = 200_000_000
"""Bytes of prompts that are kept, about."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example.

    `prompt` is what the model reads; `answer` is the answer with its end token, the only tokens
    that count in the loss. `truncated` tells whether the text had to be cut. `task` is its name,
    `index` the example's place among those of its stage. With several turns in one example the
    answer begins with the first turn that counts, and `counts` tells for each of its tokens whether
    it does (None: all do).
    """

    prompt: list[int]
    answer: list[int]
    truncated: bool
    task: str = ""
    index: int = 0
    counts: list[bool] | None = None

    def labels(self) -> list[int]:
        """The answer, with IGNORED in place of each token that does not count."""
        if self.counts is None:
            return self.answer
        pairs = zip(self.answer, self.counts, strict=True)
        return [token if counted else IGNORED for token, counted in pairs]

    def row(self, encoder_decoder: bool) -> dict[str, list[int]]:
        """`input_ids` and `labels`, as Transformers' models and collators take them."""
        if encoder_decoder:
            return {"input_ids": self.prompt, "labels": self.labels()}
        ignored = [IGNORED] * len(self.prompt)
        return {"input_ids": self.prompt + self.answer, "labels": ignored + self.labels()}

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


class Encoder:
    """Encodes examples for one tokenizer and one prompt form.

    `max_length` bounds the prompt, in tokens; `max_text_tokens` bounds the text alone. What is too
    long loses the end of its longest field (MultiRC has its question and candidate answer after a
    long paragraph); the instruction, the options and "Answer:" always stay. `ids` is for how many
    token ids the model has an embedding.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompter: Prompter,
        encoder_decoder: bool,
        max_length: int = 512,
        max_text_tokens: int | None = None,
        ids: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompter = prompter
        self.encoder_decoder = encoder_decoder
        self.max_length = max_length
        self.max_text_tokens = max_text_tokens
        self.ids = ids
        self.chats = ChatIds(self)
        self._known: dict[tuple[Task, str], tuple[array, bool]] = {}
        self._held = 0
        self.answer_ids = lru_cache(maxsize=4096)(self._answer_ids)
        self.overhead = lru_cache(maxsize=None)(self._count_overhead)
        if tokenizer.eos_token_id is None:
            raise NloraError("the model's tokenizer has no end token, so an answer could not end")

    def __call__(self, example: Example) -> Encoded:
        """The example's token ids. Raises NloraError if the instruction alone is too long."""
        return self.all([example])[0]

    def all(self, examples: Sequence[Example]) -> list[Encoded]:
        """The token ids of many examples, tokenised together."""
        prompts = self.prompts(examples)
        return [
            self.chats.with_turns(
                e, Encoded(ids, list(self.answer_ids(e.label, e.task.chat)), truncated, e.task.name)
            )
            for e, (ids, truncated) in zip(examples, prompts, strict=True)
        ]

    def prompts(self, examples: Sequence[Example]) -> list[tuple[list[int], bool]]:
        """As `prompt_ids`, of many examples. They are kept, since a stage tests what others did."""
        from nlora.data import tokens

        asked = [(e.task, e.text) for e in examples]
        if self._held > MOST_KNOWN:
            self._known.clear()
            self._held = 0
        new = list(dict.fromkeys(pair for pair in asked if pair not in self._known))
        key = self._key(new) if len(new) >= WORTH_KEEPING else None
        found = tokens.load(key) if key else None
        if found is None or len(found) != len(new):
            found = []
            for start in range(0, len(new), TOGETHER):
                pairs = new[start : start + TOGETHER]
                for (_, text), (ids, cut) in zip(pairs, self._fit(pairs), strict=True):
                    found.append((array("i", ids), cut != text))
            if key:
                tokens.save(key, found)
        self._known.update(zip(new, found, strict=True))
        self._held += sum(len(text) for _, text in new) + sum(4 * len(ids) for ids, _ in found)
        return [(ids.tolist(), cut) for ids, cut in map(self._known.__getitem__, asked)]

    def _key(self, pairs: Sequence[tuple[Task, str]]) -> str | None:
        """The hash of all that their token ids depend on; None where that cannot be known."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        made_by = (
            backend.to_str(),
            self.tokenizer.chat_template if any(map(self._templated, pairs)) else None,
            self.prompter.form,
            self.prompter.chat,
            self.encoder_decoder,
            self.max_length,
            self.max_text_tokens,
            self.ids,
            self.tokenizer.eos_token,
            [version(package) for package in ("nlora", "transformers")],
        )
        return digest([made_by, [(task.to_json(), text) for task, text in pairs]])

    def _templated(self, pair: tuple[Task, str]) -> bool:
        return self.prompter.templated(pair[0].chat)

    def text(self, ids: Any) -> str:
        """The text of ids, without special tokens and without tidying of spaces."""
        return self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def prompt_ids(self, task: Task, text: str) -> tuple[list[int], bool]:
        """Token ids of the prompt, at most `max_length`, and whether the text was cut for it."""
        [(ids, cut)] = self._fit([(task, text)])
        return ids, cut != text

    def cut(self, task: Task, text: str) -> str:
        """As much of the text as the prompt has room for."""
        return self._fit([(task, text)])[0][1]

    def _fit(self, pairs: Sequence[tuple[Task, str]]) -> list[tuple[list[int], str]]:
        """Token ids of the prompts, and as much of each text as there is room for."""
        fitted: dict[int, tuple[list[int], str]] = {}
        for fit, chat in ((self._fit_texts, False), (self.chats.fit, True)):
            chosen = [i for i, (task, _) in enumerate(pairs) if task.chat == chat]
            if chosen:
                fitted.update(zip(chosen, fit([pairs[i] for i in chosen]), strict=True))
        return [fitted[i] for i in range(len(pairs))]

    def _fit_texts(self, pairs: Sequence[tuple[Task, str]]) -> list[tuple[list[int], str]]:
        budgets = [self._room(task) for task, _ in pairs]
        offsets = self.offsets([text for _, text in pairs])
        cuts = [
            cut_fields(text, ends, budget)
            for (_, text), ends, budget in zip(pairs, offsets, budgets, strict=True)
        ]
        prompts = [
            self.prompter.prompt(task, cut) for (task, _), cut in zip(pairs, cuts, strict=True)
        ]
        fitted = []
        for (task, text), ends, budget, cut, ids in zip(
            pairs, offsets, budgets, cuts, self.tokenize(prompts), strict=True
        ):
            # Tokens can merge differently at the seams, so the count is checked and not assumed.
            while (excess := len(ids) - self.max_length) > 0 and budget > 0:
                budget -= excess
                cut = cut_fields(text, ends, max(budget, 0))
                [ids] = self.tokenize([self.prompter.prompt(task, cut)])
            fitted.append((ids, cut))
        return fitted

    def offsets(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """Where in its text each token lies, (begin, end).

        A slow tokenizer does not tell: there the tokens of a word share its letters evenly.
        """
        plain: dict[str, Any] = {"add_special_tokens": False, "verbose": False}
        # not verbose: no warning of a long text, which is cut
        if self.tokenizer.is_fast:
            encoding = self.tokenizer(texts, return_offsets_mapping=True, **plain)
            return encoding["offset_mapping"]
        found = []
        for text in texts:
            words = list(re.finditer(r"\s*\S+|\s+$", text))
            rows = self.tokenizer([w.group() for w in words], **plain).input_ids if words else []
            places: list[tuple[int, int]] = []
            for word, ids in zip(words, rows, strict=True):
                size = word.end() - word.start()
                ends = [word.start() + size * i // len(ids) for i in range(len(ids) + 1)]
                places += itertools.pairwise(ends)
            found.append(places)
        return found

    def _check_ids(self, rows: Sequence[Sequence[int]]) -> None:
        """Raise NloraError for a token that the model has no embedding for."""
        if self.ids is None:
            return
        if beyond := next((id for row in rows for id in row if id >= self.ids), None):
            token = self.tokenizer.convert_ids_to_tokens(beyond)
            raise NloraError(
                f"the tokenizer writes '{token}' as id {beyond}, and the model has embeddings for "
                f"{self.ids} ids only: tokenizer and model do not belong together, or the model "
                "must be enlarged (`model.resize_token_embeddings`)"
            )

    def _room(self, task: Task) -> int:
        """How many tokens a text of the task may have."""
        room = self.max_length - self.overhead(task)
        if room <= 0:
            raise NloraError(
                f"task '{task.name}': instruction and options alone take {self.overhead(task)} "
                f"tokens, max_length is {self.max_length}; set a larger max_length"
            )
        return room if self.max_text_tokens is None else min(room, self.max_text_tokens)

    def _count_overhead(self, task: Task) -> int:
        return len(self.tokenize([self.prompter.prompt(task, "")], task.chat)[0])

    def tokenize(self, prompts: list[str], chat: bool = False) -> list[list[int]]:
        return self._ids(prompts, not self.prompter.templated(chat))  # it writes special tokens

    def raw(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts as they are, to be continued; the tokenizer's own begin them."""
        return self._ids(texts, special=True)

    def _ids(self, prompts: list[str], special: bool) -> list[list[int]]:
        rows = self.tokenizer(prompts, add_special_tokens=special).input_ids
        if special and not self.encoder_decoder:
            # Some tokenizers of decoder-only models end every text; a prompt is to be continued.
            end = self.tokenizer.eos_token_id
            rows = [row[:-1] if row and row[-1] == end else row for row in rows]
        self._check_ids(rows)
        return rows

    def end(self, chat: bool = False) -> int:
        """The token that ends an answer of a task, one of chats or not."""
        if self.prompter.templated(chat):
            return self.prompter.chats.end[1]
        return self.tokenizer.eos_token_id

    def _answer_ids(self, label: str, chat: bool = False) -> tuple[int, ...]:
        if self.encoder_decoder:
            ids = self.tokenizer(text_target=label, add_special_tokens=False).input_ids
        else:
            # Tokens of the answer as it stands behind the prompt: with the space before it.
            context, gap, tail = self.prompter.around_answer(chat)
            answer = gap + label + tail
            before = self.tokenizer(context, add_special_tokens=False).input_ids
            both = self.tokenizer(context + answer, add_special_tokens=False).input_ids
            seamless = both[: len(before)] == before
            ids = (
                both[len(before) :]
                if seamless
                else self.tokenizer(answer, add_special_tokens=False).input_ids
            )
        found = (*ids, self.end(chat))
        self._check_ids([found])
        return found
