"""A conversation as a model reads it: by its chat template, or a plain form where it has none.

{system}
User: {question}
Assistant: {answer}</s>
User: {question}
Assistant:
"""

import itertools
from functools import cached_property
from typing import Any

from nlora.data.bounded import endless
from nlora.data.messages import Messages
from nlora.errors import NloraError

_NAMES = {"system": "", "user": "User: ", "assistant": "Assistant: ", "tool": "Tool: "}
_NEXT = "Assistant:"
_ASKS = {"role": "user", "content": "?"}
_MARK = "an answer"
_ANSWERS = {"role": "assistant", "content": _MARK}


class ChatForm:
    """How the model that a tokenizer belongs to reads conversations."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.templated = bool(tokenizer.chat_template)
        self._takes: str | None = ""
        """What its template takes too much of; None if it ends, empty if that was not tried."""

    def prompt(self, turns: Messages) -> str:
        """All turns, up to where the assistant's next answer begins.

        A system's turn that the template refuses or leaves out stands before the first question
        instead. Raises NloraError for turns that the template refuses, where it leaves out one of
        the system's or a question, or one of two answers in a row, and for a template that does not
        end.
        """
        if not self.templated:
            return self._plain(turns)
        self._check_ends(turns)
        if _in_a_row(turns) and not self._takes_two:
            raise NloraError(
                "the model's chat template takes no two answers in a row; join them into one"
            )
        try:
            return self._rendered(turns)
        except Exception as error:  # a template may raise whatever Jinja and its own code do
            folded = _folded(turns)
            if folded is not None:
                try:
                    return self._rendered(folded)
                except Exception:
                    pass  # what it says of the turns as they were tells more
            said = " ".join(str(error).split()) or repr(error)
            raise NloraError(f"the model's chat template refuses it: {said}") from None

    def _check_ends(self, turns: Messages) -> None:
        """Try the template once, on these turns and on a question with its answer."""
        if self._takes == "":

            def render() -> None:
                for given in (turns, [_ASKS, _ANSWERS]):
                    said = [{"role": t["role"], "content": t["content"]} for t in given]
                    self.tokenizer.apply_chat_template(said, tokenize=False)

            self._takes = endless(render)
        if self._takes is not None:
            raise NloraError(
                f"the model's chat template takes {self._takes} for one conversation; take a model "
                "with another template"
            )

    @property
    def before_answer(self) -> str:
        """What may stand before an answer, so that it can be tokenised as it stands there."""
        return self.prompt([_ASKS]) if self.templated else _NEXT

    @property
    def gap(self) -> str:
        """The blanks between the prompt and the answer."""
        return self._writes[0] if self.templated else " "

    @property
    def tail(self) -> str:
        """The blanks between the answer and its end."""
        rest = self._writes[1]
        return rest[: len(rest) - len(rest.lstrip())] if self._end_of_turn else ""

    @property
    def end(self) -> tuple[str, int]:
        """The token that ends an answer, and its id: the template's, else the tokenizer's.

        A template that ends turns with a text of several tokens leaves it to the tokenizer's.
        """
        return self._end_of_turn or (self.tokenizer.eos_token, self.tokenizer.eos_token_id)

    @cached_property
    def unopened(self) -> str | None:
        """What the template writes before an answer and not where an answer is asked for.

        None for templates that open the assistant's turn (`add_generation_prompt`) or write nothing
        there.
        """
        if not self.templated:
            return None
        try:
            asked = self.prompt([_ASKS])
            closed = self.tokenizer.apply_chat_template([_ASKS], tokenize=False)
            whole = self.tokenizer.apply_chat_template([_ASKS, _ANSWERS], tokenize=False)
        except Exception:  # it wants something else; `prompt` says what
            return None
        before, _ = _around_mark(whole)
        header = before[len(asked) :] if before.startswith(asked) else ""
        return header if asked == closed and header.strip() else None

    @cached_property
    def _takes_two(self) -> bool:
        """Whether the template writes two answers in a row, and both."""
        second = "one more"
        turns = [_ASKS, _ANSWERS, {**_ANSWERS, "content": second}, _ASKS]
        try:
            found = self.tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception:  # whatever it says
            return False
        return _MARK in found and second in found

    @cached_property
    def _writes(self) -> tuple[str, str]:
        """What the template writes between a prompt and its answer, and after the answer."""
        if not self.templated:
            return "", ""
        try:
            before = self.prompt([_ASKS])
            whole = self.tokenizer.apply_chat_template([_ASKS, _ANSWERS], tokenize=False)
        except Exception:  # it wants something else; `prompt` says what
            return "", ""
        begin, rest = _around_mark(whole)
        gap = begin[len(before) :]
        # more than blanks is not for the model to write: it may be a thought that was left out
        return (gap if begin.startswith(before) and not gap.strip() else ""), rest

    @cached_property
    def _end_of_turn(self) -> tuple[str, int] | None:
        rest = self._writes[1].lstrip()
        known = {str(t): id for id, t in self.tokenizer.added_tokens_decoder.items()}
        end = max((text for text in known if rest.startswith(text)), key=len, default=None)
        return None if end is None else (end, known[end])

    def learned(self, turns: Messages) -> list[int]:
        """Which of the turns are answers to be learned."""
        asked = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), len(turns))
        return [
            i
            for i, turn in enumerate(turns)
            if turn["role"] == "assistant" and turn.get("weight") != 0 and i > asked
        ]

    def spans(self, turns: Messages) -> list[tuple[int, int]] | None:
        """Where in their prompt the answers to be learned lie, each with its end.

        None where the prompt has one of them otherwise than it would be asked for and given alone,
        as do templates that leave something out of earlier answers.
        """
        whole, found = self.prompt(turns), []
        for i in self.learned(turns):
            before = self.prompt(turns[:i])
            said = before + self.gap + turns[i]["content"] + self.tail + self.end[0]
            if not whole.startswith(said):
                return None
            found.append((len(before), len(said)))
        return found

    def _rendered(self, turns: Messages) -> str:
        said = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        found = self.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        whole = "".join(found.split())
        for turn in said:  # templates may change earlier answers, as those that think do
            content = "".join(turn["content"].split())
            if turn["role"] in ("system", "user") and content not in whole:
                shown = " ".join(turn["content"].split())[:40]
                raise NloraError(f"it leaves out what the {turn['role']} says: '{shown}'")
        return found

    def _plain(self, turns: Messages) -> str:
        end = self.tokenizer.eos_token
        lines = [
            _NAMES[turn["role"]] + turn["content"] + (end if turn["role"] == "assistant" else "")
            for turn in turns
        ]
        return "\n".join([*lines, _NEXT])


def _around_mark(whole: str) -> tuple[str, str]:
    """What stands before and after the answer, the last one that reads so (a template may say it,
    too); all before where there is none."""
    before, mark, after = whole.rpartition(_MARK)
    return (before, after) if mark else (whole, "")


def _in_a_row(turns: Messages) -> bool:
    """Whether two answers follow each other; one is to follow the last turn."""
    roles = [*(turn["role"] for turn in turns), "assistant"]
    return any(pair == ("assistant", "assistant") for pair in itertools.pairwise(roles))


def without_oldest(turns: Messages) -> Messages | None:
    """The turns without the first question and what follows it; None if it is the only one."""
    system = turns[:1] if turns[0]["role"] == "system" else []
    rest = turns[len(system) :]
    second = next((i for i, turn in enumerate(rest) if i and turn["role"] == "user"), None)
    return None if second is None else system + rest[second:]


def _folded(turns: Messages) -> Messages | None:
    """The turns with the system's at the beginning of the first question, or None."""
    if len(turns) < 2 or turns[0]["role"] != "system" or turns[1]["role"] != "user":
        return None
    content = f"{turns[0]['content']}\n\n{turns[1]['content']}"
    return [{**turns[1], "content": content}, *turns[2:]]
