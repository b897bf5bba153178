"""Which columns of a file are the text and the label: as they were named, or by obvious names."""

import re
from collections.abc import Iterable, Mapping, Sequence

from nlora.data.messages import LISTS
from nlora.data.rows import Report, Rows
from nlora.errors import NloraError, option, unknown

TARGETS = ("text", "label")
"""What columns are named as."""
PLAIN = ("text", "sentence")
"""A row with one of these and `label` is read as it is."""
_TEXTS = (*PLAIN, "content", "review", "question", "document", "comment", "tweet", "body", "query")
_LABELS = (
    *("label", "labels", "target", "answer", "output", "completion"),
    *("class", "category", "sentiment", "intent"),
)
_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("question", "context"),
    ("question", "passage"),
    ("question", "sentence"),  # QNLI
)
# Chats and instructions have a reader of their own.
_ASKED = {"instruction": ("output", "response"), "prompt": ("completion",)}


def parse_columns(text: str) -> dict[str, str]:
    """The columns of `text=review,label=stars`. Raises NloraError if it is no such list.

    >>> parse_columns("text=title+body,label=stars")
    {'text': 'title+body', 'label': 'stars'}
    """
    found = {}
    for part in text.split(","):
        target, equals, column = part.partition("=")
        if not equals or target.strip() in found:
            raise NloraError(f"columns are text=NAME,label=NAME, each once, not '{text}'")
        found[target.strip()] = column.strip()
    return check_columns(found)


def check_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Columns by what they are. Raises NloraError for what is neither text nor label."""
    for target, column in columns.items():
        if target not in TARGETS:
            raise unknown("key of columns", target, TARGETS)
        if not isinstance(column, str) or not column.strip():
            raise NloraError(f"columns: '{target}' names no column")
    return dict(columns)


def obvious(names: Iterable[str], columns: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether a header has a text and a label, as named in `columns` or by an obvious name."""
    names = list(names)
    text = _given(columns["text"], names) if "text" in columns else _text(names)
    label = _given(columns["label"], names) if "label" in columns else _label(names)
    return bool(text), bool(label)


def named(
    rows: Rows,
    columns: Mapping[str, str],
    label_names: Sequence[str] | None,
    report: Report,
    answers: bool = True,
) -> tuple[Rows, list[str], tuple[str, ...] | None]:
    """The rows with their text as `text` and, if `answers`, their answer as `label`.

    Also what was chosen, in words, where it was not simply text or sentence and label, and the
    names of the label's numbers: `label_names`, else those that the file has. Rows that read as
    they are, and chats, stay as they are. Raises NloraError when there is no such column.
    """
    keys = _keys(rows.values)
    if not keys or (not columns and _is_chat(rows.values, keys, answers)):
        return rows, _unread_label(rows), None
    text, label = _choose(rows, keys, columns, answers)
    names = tuple(label_names) if label_names else rows.names.get(label[0]) if label else None
    told = []
    plain = set(text) <= set(PLAIN) and (not answers or label == ["label"])
    if plain and not columns and not names:
        return rows, [], None
    if not plain and not columns:
        chosen = f"text is {_words(text)}" + (f", label is {_words(label)}" if answers else "")
        told.append(f"{rows.path}: {chosen}; {option('columns')} chooses others")
    if label and label_names:
        _check_numbers(rows, label[0], label_names)
    values: list[object] = []
    places: list[int] = []
    for i, row in enumerate(rows.values):
        try:
            if not isinstance(row, dict):
                raise NloraError(f"an example must be an object with {_words([*text, *label])}")
            here = [key for key in text if key in row] if set(text) == set(PLAIN) else text
            missing = [key for key in (*(here or text[:1]), *label) if key not in row]
            if missing:
                raise NloraError(f"no {_words(missing)}; it has: {', '.join(row)[:80]}")
            made = {"text": _joined(row, here)}
            if answers:
                made["label"] = _name_of(row[label[0]], names)
        except NloraError as error:
            report(f"{rows.place(i)}: {error}")
            continue
        values.append(made)
        places.append(i)
    made_rows = Rows(rows.path, values, lambda i: rows.place(places[i]), rows.format)
    return made_rows, told, names


def _keys(values: Sequence[object]) -> list[str]:
    """The keys of all rows, in order."""
    keys: dict[str, None] = {}
    last = None
    for row in values:
        if isinstance(row, dict) and row.keys() != last:
            last = row.keys()
            keys.update(dict.fromkeys(last))
    return list(keys)


def _is_chat(values: Sequence[object], keys: Sequence[str], answers: bool) -> bool:
    folded = {key.lower() for key in keys}
    if not folded.isdisjoint(LISTS):
        # Beside a text and a label, a column of this name may hold anything, such as a number.
        complete = _text(keys) and (not answers or _label(keys))
        if not complete or any(_has_turns(value) for row in values for value in _chats_of(row)):
            return True
    return any(
        asked in folded and (not answers or not folded.isdisjoint(given))
        for asked, given in _ASKED.items()
    )


def _chats_of(row: object) -> list[object]:
    """What a row has under the names of chats."""
    pairs = row.items() if isinstance(row, dict) else ()
    return [value for key, value in pairs if key.lower() in LISTS]


def _has_turns(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("[{"))


def _unread_label(rows: Rows) -> list[str]:
    """A note where chats have a label, since their last answer is what is learned."""
    for i, row in enumerate(rows.values):
        folded = {key.lower() for key in row} if isinstance(row, dict) else set()
        if "label" in folded and folded.isdisjoint(PLAIN):
            note = "is a chat, of which the last answer is learned and 'label' is not read"
            return [f"{rows.place(i)}: {note}"]
    return []


def _choose(
    rows: Rows, keys: Sequence[str], columns: Mapping[str, str], answers: bool
) -> tuple[list[str], list[str]]:
    """The columns of the text (two of a pair) and of the label."""
    found: dict[str, list[str]] = {}
    missing = []
    for target, find in (("text", _text), ("label", _label)):
        if target == "label" and not answers:
            continue
        if target in columns:
            found[target] = _given(columns[target], keys)
            if not found[target]:
                near = unknown("column", columns[target], keys)
                raise NloraError(f"{rows.path}: {near}")
            if target == "label" and len(found[target]) > 1:
                raise NloraError(
                    f"{rows.path}: the label is one column, not {_words(found[target])}"
                )
        else:
            found[target] = find(keys)
        if not found[target]:
            missing.append("no 'text' or 'sentence'" if target == "text" else "no 'label'")
    if missing:
        raise NloraError(_unnamed(rows, keys, " and ".join(missing)))
    return found["text"], found.get("label", [])


def _unnamed(rows: Rows, keys: Sequence[str], missing: str) -> str:
    """What to do where no column has an obvious name."""
    have = ", ".join(keys)[:120]
    which = "say which are (--columns text=NAME,label=NAME, or 'columns' in Python and YAML)"
    if rows.delimiter is None:
        return f"{rows.place(0)}: {missing}; it has: {have}; {which}"
    return (
        f"{rows.path}, line 1: {missing} among the names of columns: {have}; if the file has no "
        f"header, add one, e.g. text{repr(rows.delimiter)[1:-1]}label, else {which}"
    )


def _text(keys: Sequence[str]) -> list[str]:
    folded = {key.strip().lower(): key for key in reversed(keys)}
    simple = {re.sub(r"[_ -]", "", name): key for name, key in folded.items()}
    for pair in _PAIRS:
        if simple.keys() >= set(pair) >= set(PLAIN) & folded.keys():
            return [simple[name] for name in pair]
    plain = [key for key in PLAIN if key in keys]
    if plain:
        return plain  # rows may have one or the other
    return [folded[name] for name in _TEXTS if name in folded][:1]


def _label(keys: Sequence[str]) -> list[str]:
    if "label" in keys:
        return ["label"]
    folded = {key.strip().lower(): key for key in reversed(keys)}
    return [folded[name] for name in _LABELS if name in folded][:1]


def _given(name: str, keys: Sequence[str]) -> list[str]:
    """The columns of this name, or of several joined by `+`, exactly or whatever their case."""
    folded = {key.strip().lower(): key for key in reversed(keys)}
    found = []
    for part in [name] if name in keys else name.split("+"):
        key = part if part in keys else folded.get(part.strip().lower())
        if key is None:
            return []
        found.append(key)
    return found


def _joined(row: dict, text: Sequence[str]) -> object:
    """The text of a row: of one column as it is, of several each with its name before it."""
    if len(text) == 1:
        return row[text[0]]
    if set(text) == set(PLAIN):
        raise NloraError("has both 'text' and 'sentence'; keep one of them")
    empty = [key for key in text if not isinstance(row[key], str) or not row[key].strip()]
    if empty:
        raise NloraError(f"{_words(empty)} is empty or no text")
    return "\n".join(f"{key.strip()}: {row[key]}" for key in text)


def _check_numbers(rows: Rows, label: str, names: Sequence[str]) -> None:
    """Raises NloraError where every label is one of the names, and some number that of another."""
    values = (row.get(label) for row in rows.values if isinstance(row, dict))
    found = {value for value in values if isinstance(value, str)}
    for name in sorted(value for value in names if value in found):
        number = int(name) if re.fullmatch(r"\d+", name) else len(names)
        if number < len(names) and names[number] != name and found <= set(names):
            raise NloraError(
                f"{rows.path}: label {name} may be the name '{name}' or the number of "
                f"'{names[number]}'; if the labels are names already, leave label_names out"
            )


def _name_of(value: object, names: Sequence[str] | None) -> object:
    """The name of a numeric label; what is one of the names already stays."""
    if not names or not isinstance(value, str):
        return value
    number = value.strip().removesuffix(".0")
    if not re.fullmatch(r"-?\d+", number):
        if value in names:
            return value
        raise NloraError(f"label '{value[:60]}' is neither a name nor the number of one")
    if number == "-1":
        raise NloraError("'label' is empty (-1)")
    if not 0 <= int(number) < len(names):
        raise NloraError(f"label {number}: there are {len(names)} names, for 0 to {len(names) - 1}")
    return names[int(number)]


def _words(keys: Sequence[str]) -> str:
    return " and ".join(f"'{key}'" for key in keys)
