"""Rows that hold chats or instructions, as conversations whose last answer is the label.

messages        role and content (OpenAI), or from and value (ShareGPT: `conversations`)
instruction     with `output` (Alpaca) or `response`, and `input` or `context` where there is more;
                `system` and `history`, a list of [question, answer], count, too
prompt          with `completion`: texts, or lists of messages

Content is a text, or a list of parts that are texts. An example's text is what stands before the
last answer, as a JSON list of `{"role", "content"}`; a turn of the assistant that is not to be
learned has `"weight": 0` in it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nlora.data.task import Task, TaskData
from nlora.errors import NloraError, unknown

Messages = list[dict[str, Any]]
"""The turns of a conversation: `role`, `content`, and `weight` 0 where it is not learned."""

ROLES = ("system", "user", "assistant", "tool")
_ALSO = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "bot", "ai"), "assistant"),
    **dict.fromkeys(("function", "observation", "ipython"), "tool"),
    "developer": "system",
}
LISTS = ("messages", "conversations", "conversation")
"""What a row calls the turns of a chat."""
_OUTPUTS = ("output", "response")
_BEGINNING = '[{"role": '
NO_SYSTEM = {"role": "system", "content": ""}
"""Says that a row has an instruction of its own elsewhere, so that the task's is left out."""


def read_chat(row: object, task: Task) -> tuple[object, Task]:
    """A row that holds a chat as one with `text` and `label`, and its task as one of chats.

    What stands after the last answer that is to be learned is left out. Other rows are returned as
    they are. Raises NloraError for a role that is not known, an empty turn, and a chat without an
    answer.
    """
    turns = _turns(row) if isinstance(row, dict) and not _is_plain(row) else None
    if turns is None:
        return row, task
    learned = [i for i, turn in enumerate(turns) if _is_learned(turn)]
    if not learned:
        raise NloraError("the chat has no turn of the assistant to be learned")
    before, answer = turns[: learned[-1]], turns[learned[-1]]["content"]
    if all(turn["role"] == "system" for turn in before):
        raise NloraError("nothing is asked before the assistant's answer")
    return {"text": _dump(before), "label": answer}, replace(task, chat=True)


def read_asked(row: object) -> object:
    """As `read_chat`, of a row that needs no answer: its chat must end with a user's turn.

    A row that has a text, too, is read as it would be learned: Alpaca's has all of it in `text`.
    """
    if not isinstance(row, dict) or (_has_text(row) and not _is_learned_as_chat(row)):
        return row
    turns = _turns(row, answered=False)
    if turns is None:
        return row
    if not turns or turns[-1]["role"] not in ("user", "tool"):
        raise NloraError("the chat does not end with a user's turn, so nothing is asked")
    return {"text": _dump(turns)}


def agreed(data: TaskData) -> TaskData:
    """A task of which some examples are chats as one of chats: the others are a user's turn."""
    splits = {"train": data.train, "test": data.test, "dev": data.dev}
    if not any(e.task.chat for split in splits.values() for e in split):
        return data
    task = replace(data.task, chat=True)
    chats = {name: tuple(replace(e, task=task) for e in split) for name, split in splits.items()}
    return replace(data, task=task, **chats)


def conversation(text: str) -> Messages | None:
    """The turns that a text was made from; None for a plain text."""
    if not text.startswith(_BEGINNING):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if all(map(_is_turn, found)) else None


def asked(task: Task, text: str) -> Messages:
    """The turns that a text of a task of chats is asked by.

    A plain text is a user's turn. The task's instruction is the system's, unless the chat has one.
    """
    turns = conversation(text) or [{"role": "user", "content": text}]
    if task.instruction is not None and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": task.instruction}, *turns]
    return turns if turns[0]["content"] or turns[0]["role"] != "system" else turns[1:]


def dump(turns: Messages) -> str:
    """The turns as a text, of which `asked` makes the same again whatever the task."""
    return _dump(turns if turns[0]["role"] == "system" else [NO_SYSTEM, *turns])


def plain(text: str) -> str:
    """The contents of a conversation's turns, one after another; a plain text as it is."""
    turns = conversation(text)
    if turns is None:
        return text
    return "\n".join(turn["content"] for turn in turns if turn["content"])


def _is_turn(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("role") in ROLES
        and isinstance(value.get("content"), str)
    )


def _dump(turns: Messages) -> str:
    return json.dumps(turns, ensure_ascii=False)


def _is_plain(row: Mapping[str, Any]) -> bool:
    """Whether a row has text and label, so that whatever else it has does not matter."""
    return "label" in _lower(row) and _has_text(row)


def _has_text(row: Mapping[str, Any]) -> bool:
    return not _lower(row).keys().isdisjoint(("text", "sentence"))


def _is_learned_as_chat(row: Mapping[str, Any]) -> bool:
    """Whether `read_chat` takes the row for a chat."""
    keys = _lower(row)
    listed = any(_as_list(keys.get(key)) is not None for key in LISTS)
    asked = "instruction" in keys and not keys.keys().isdisjoint(_OUTPUTS)
    return not _is_plain(row) and (listed or asked or keys.keys() >= {"prompt", "completion"})


def _lower(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key).lower(): value for key, value in row.items()}


def _is_learned(turn: Mapping[str, Any]) -> bool:
    return turn["role"] == "assistant" and turn.get("weight") != 0


def _turns(row: Mapping[str, Any], answered: bool = True) -> Messages | None:
    """The turns of a row that holds a chat, else None."""
    values = _lower(row)
    turns = _listed(values)
    if turns is None and "instruction" in values:
        turns = _instructed(values, answered)
    if turns is None and "prompt" in values:
        turns = _completed(values, answered)
    if turns is None:
        return None
    system = values.get("system")
    if isinstance(system, str) and system.strip():
        turns = [t for t in turns if t is not NO_SYSTEM]
        if not any(turn["role"] == "system" for turn in turns):
            turns = [{"role": "system", "content": system}, *turns]
    return turns


def _listed(values: Mapping[str, Any]) -> Messages | None:
    for key in LISTS:
        found = _as_list(values.get(key))
        if found is not None:
            return _messages(found)
    return None


def _instructed(values: Mapping[str, Any], answered: bool) -> Messages | None:
    """The turns of an instruction with its answer. It is the row's own, so the task's is not."""
    output = next((key for key in _OUTPUTS if key in values), None)
    if answered and output is None:
        return None
    turns: Messages = [NO_SYSTEM]
    history = _as_list(said := values.get("history"), begins="[")
    if history is None and str(said or "").strip():
        raise NloraError("'history' must be a list of [question, answer]")
    for number, pair in enumerate(history or (), start=1):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise NloraError(f"history, {number}: must be a list of question and answer")
        turns += _pair(*pair)
    more = values.get("input") or values.get("context")
    question = _content(values["instruction"], "'instruction'")
    if more and not isinstance(more, str):
        raise NloraError(f"'{'input' if values.get('input') else 'context'}' must be text")
    if more and more.strip():
        question = f"{question}\n\n{more}"
    return turns + (_pair(question, values[output]) if answered and output else _asks(question))


def _completed(values: Mapping[str, Any], answered: bool) -> Messages | None:
    """The turns of a prompt and its completion, which alone is learned."""
    if answered and "completion" not in values:
        return None
    prompt, completion = values["prompt"], values.get("completion")
    listed = _as_turns(prompt)
    turns = _asks(prompt) if listed is None else _messages(listed)
    if not answered:
        return turns
    turns = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in turns]
    listed = _as_turns(completion)
    return turns + ([_answers(completion)] if listed is None else _messages(listed))


def _pair(question: Any, answer: Any) -> Messages:
    return [*_asks(question), _answers(answer)]


def _asks(question: Any) -> Messages:
    return [{"role": "user", "content": _content(question, "the user's turn")}]


def _answers(answer: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": _content(answer, "the assistant's turn").strip()}


def _as_list(value: Any, begins: str = "[{") -> list[Any] | None:
    """A list, also one that is written as JSON, as in a cell of a CSV file."""
    if isinstance(value, str) and value.lstrip().startswith(begins):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise NloraError(f"a chat that is no JSON: {error}") from None
    return list(value) if isinstance(value, list | tuple) else None


def _as_turns(value: Any) -> list[Any] | None:
    """As `_as_list`; a text of other JSON, such as a completion to be written, is a text."""
    found = _as_list(value)
    turns = any("role" in one or "from" in one for one in found or () if isinstance(one, Mapping))
    return found if turns or not isinstance(value, str) else None


def _messages(values: Sequence[Any]) -> Messages:
    if not values:
        raise NloraError("the chat has no turns")
    return [
        turn
        for number, value in enumerate(values, start=1)
        if (turn := _message(value, f"turn {number}")) is not None
    ]


def _message(value: Any, place: str) -> dict[str, Any] | None:
    """A turn as role and content; None for a system's turn without any."""
    if not isinstance(value, Mapping):
        raise NloraError(f"{place} must be an object with 'role' and 'content'")
    said = value.get("role", value.get("from"))
    role = _ALSO.get(str(said).lower(), str(said).lower())
    if said is None or role not in ROLES:
        if said is None:
            raise NloraError(f"{place} has no 'role'")
        raise NloraError(f"{place}: {unknown('role', str(said), ROLES)}")
    content = value.get("content", value.get("value"))
    if content is None and value.get("tool_calls"):
        raise NloraError(f"{place} calls a tool and says nothing; only texts can be learned")
    if role == "system" and not content:
        return None
    text = _content(content, f"{place} ({said})")
    turn: dict[str, Any] = {"role": role, "content": text}
    if role == "assistant":
        turn["content"] = text.strip()
        if str(value.get("weight")) in ("0", "0.0"):  # as in OpenAI's files
            turn["weight"] = 0
    return turn


def _content(value: Any, place: str) -> str:
    """The text of a turn: a string, or the texts of its parts."""
    if isinstance(value, list | tuple):
        value = "".join(_part(part, place) for part in value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise NloraError(f"{place} is empty")
    if not isinstance(value, str):
        raise NloraError(f"{place} must be text")
    return value


def _part(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise NloraError(f"{place} has a part of type '{kind}'; only texts can be learned")
