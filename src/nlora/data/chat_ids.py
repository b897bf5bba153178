"""The token ids of chats: which of them count, and what is cut."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nlora.data.chat import ChatForm, without_oldest
from nlora.data.cut import cut_fields
from nlora.data.messages import Messages, asked, dump
from nlora.data.task import Example, Task
from nlora.errors import NloraError

if TYPE_CHECKING:
    from nlora.data.encode import Encoded, Encoder


class ChatIds:
    """What an encoder does with examples of tasks of chats."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @property
    def form(self) -> ChatForm:
        """How the model reads conversations."""
        return self.encoder.prompter.chats

    def separate(self, examples: Sequence[Example]) -> list[Example]:
        """The examples, of which a chat with several answers to learn may become one for each.

        That is where one pass cannot learn all of them as they are asked for: with an
        encoder-decoder model, and a template that writes earlier answers otherwise.
        """
        found = []
        for example in examples:
            turns = asked(example.task, example.text) if example.task.chat else []
            learned = self.form.learned(turns) if turns else []
            if not learned or self._spans(turns):
                found.append(example)
                continue
            alone = [turn | {"weight": 0} if i in learned else turn for i, turn in enumerate(turns)]
            found += [
                replace(example, text=dump(alone[:i]), label=turns[i]["content"]) for i in learned
            ]
            found.append(replace(example, text=dump(alone)))
        return found

    def _spans(self, turns: Messages) -> list[tuple[int, int]]:
        """Where in their prompt the answers lie that are learned with the last one."""
        if self.encoder.encoder_decoder or not self.encoder.tokenizer.is_fast:
            return []
        return self.form.spans(turns) or []

    def with_turns(self, example: Example, encoded: Encoded) -> Encoded:
        """A chat's token ids, with those of earlier answers counted, too."""
        task, text = example.task, example.text
        if not task.chat:
            return encoded
        turns = asked(task, self.encoder.cut(task, text) if encoded.truncated else text)
        spans = self._spans(turns)
        if not spans:
            return encoded
        encode = self.encoder
        places = encode.tokenizer(
            self.form.prompt(turns),
            add_special_tokens=not encode.prompter.templated(chat=True),
            return_offsets_mapping=True,
            verbose=False,
        )["offset_mapping"]
        counts = [
            begin < end and any(first <= begin and end <= last for first, last in spans)
            for begin, end in places[: len(encoded.prompt)]
        ]
        if True not in counts:
            return encoded
        start = counts.index(True)
        return replace(
            encoded,
            prompt=encoded.prompt[:start],
            answer=encoded.prompt[start:] + encoded.answer,
            counts=counts[start:] + [True] * len(encoded.answer),
        )

    def fit(self, pairs: Sequence[tuple[Task, str]]) -> list[tuple[list[int], str]]:
        """Token ids of the prompts, and as much of each chat as there is room for.

        First the oldest turns give way, then the end of the last question. Raises NloraError where
        that is not enough, and for a chat that the template refuses.
        """
        encode = self.encoder
        chats = [asked(task, text) for task, text in pairs]
        prompts = [
            self._chat_prompt(task, turns) for (task, _), turns in zip(pairs, chats, strict=True)
        ]
        fitted = []
        for (task, text), turns, ids in zip(
            pairs, chats, encode.tokenize(prompts, chat=True), strict=True
        ):
            whole, limit, most = turns, encode.max_length, encode.max_text_tokens
            if most is not None and len(ids) > most:
                limit = min(limit, encode.overhead(task) + most)

            def read(turns: Messages, task: Task = task) -> list[int]:
                return encode.tokenize([self._chat_prompt(task, turns)], chat=True)[0]

            while len(ids) > limit and (shorter := without_oldest(turns)) is not None:
                turns, ids = shorter, read(shorter)
            if len(ids) > limit:
                turns, ids = self._shortened(turns, ids, limit, read)
            if len(ids) > limit:
                raise NloraError(
                    f"task '{task.name}': what must stand in a chat takes {len(ids)} tokens, and "
                    f"there is room for {limit}; set a larger max_length"
                )
            fitted.append((ids, text if turns is whole else dump(turns)))
        return fitted

    def _shortened(
        self, turns: Messages, ids: list[int], limit: int, read: Callable[[Messages], list[int]]
    ) -> tuple[Messages, list[int]]:
        """The turns, the last question cut until they have no more than `limit` tokens, if so."""
        place = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=None)
        if place is None:
            return turns, ids
        content = turns[place]["content"]
        [ends] = self.encoder.offsets([content])
        budget = len(ends)
        while (excess := len(ids) - limit) > 0 and budget > 0:
            budget = max(budget - excess, 0)
            cut = {**turns[place], "content": cut_fields(content, ends, budget)}
            turns = [*turns[:place], cut, *turns[place + 1 :]]
            ids = read(turns)
        return turns, ids

    def _chat_prompt(self, task: Task, turns: Messages) -> str:
        """The prompt of a chat. Raises NloraError if the template refuses it."""
        try:
            return self.form.prompt(turns)
        except NloraError as error:
            first = next((turn["content"] for turn in turns if turn["role"] == "user"), "")
            begin = textwrap.shorten(first, 60, placeholder=" ...")
            raise NloraError(
                f"task '{task.name}', the chat that begins with '{begin}': {error}"
            ) from None
