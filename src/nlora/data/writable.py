"""Whether a tokenizer can write a task's labels and read its texts: what it has no piece for."""

from collections.abc import Callable, Sequence

from nlora.data.comparing import comparison
from nlora.data.encode import TOGETHER, Encoder
from nlora.data.messages import plain
from nlora.data.task import Example, TaskData
from nlora.errors import NloraError

MANY = 0.05
"""The share of unknown tokens in a task's texts from which on it is told."""
MOST = 0.5
"""The share from which on a model cannot learn from them."""


def check_writable(
    encoder: Encoder, tasks: Sequence[TaskData], tell: Callable[[str], object] = lambda text: None
) -> None:
    """Raises NloraError at a label with a piece that the tokenizer reads as unknown, or that reads
    otherwise as the tokenizer writes it (without accents, say), so that no answer would equal it;
    and where more than half of the tokens of a task's texts are unknown (of its first training
    texts). Many unknown ones are told, and free answers that read otherwise."""
    unknown = encoder.tokenizer.unk_token_id
    for data in tasks:
        for label in data.task.labels or ():
            if unknown is not None and unknown in encoder.answer_ids(label, data.task.chat)[:-1]:
                raise NloraError(
                    f"task '{data.name}': the model's tokenizer cannot write "
                    f"{_piece(encoder, label)} of label '{label}'; rename the label or take "
                    "another model"
                )
        _check_same(encoder, data, tell)
        if unknown is None:
            continue
        first = data.train[:TOGETHER]
        _check_known(encoder, data.name, "texts", [plain(e.text) for e in first], tell)
        if data.task.labels is None:
            _check_known(encoder, data.name, "answers", [e.label for e in first], tell)


def _check_same(encoder: Encoder, data: TaskData, tell: Callable[[str], object]) -> None:
    """Raises NloraError for a label that reads otherwise as the tokenizer writes it."""
    labels, chat = data.task.labels, data.task.chat
    form = comparison(labels)
    answers = labels or [example.label for example in data.train[:TOGETHER]]
    written = {a: encoder.text(encoder.answer_ids(a, chat)[:-1]).strip() for a in answers}
    others = [answer for answer, found in written.items() if form(found) != form(answer)]
    if labels and others:
        raise NloraError(
            f"task '{data.name}': the model's tokenizer writes label '{others[0]}' as "
            f"'{written[others[0]]}', so no answer would equal it; rename the label or take "
            "another model"
        )
    if len(others) > MANY * len(written):
        share = len(others) / len(written)
        tell(
            f"task '{data.name}': the model's tokenizer writes {share:.0%} of its answers "
            f"otherwise ('{others[0]}' as '{written[others[0]]}'), so they cannot be given exactly"
        )


def _check_known(
    encoder: Encoder, task: str, what: str, texts: Sequence[str], tell: Callable[[str], object]
) -> None:
    """Raises NloraError where more than half of the tokens of texts are unknown; many are told."""
    if not texts:
        return
    rows = encoder.tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
    tokens = [token for row in rows for token in row]
    share = tokens.count(encoder.tokenizer.unk_token_id) / max(len(tokens), 1)
    told = f"task '{task}': {share:.0%} of the tokens of its {what} are unknown to the model"
    if share > MOST:
        raise NloraError(f"{told}; take a model that knows this language")
    if share > MANY:
        tell(told)


def _name_refused(encoder: Encoder, examples: Sequence[Example]) -> None:
    """Raises NloraError, with file and line, at the first chat that cannot be encoded."""
    for example in examples:
        try:
            encoder.prompts([example])
        except NloraError as error:
            place = f"{example.place}: " if example.place else ""
            raise NloraError(f"{place}{error}") from None


def check_readable(
    encoder: Encoder,
    tasks: Sequence[TaskData],
    max_new_tokens: int,
    tell: Callable[[str], object] = lambda text: None,
) -> None:
    """Raises NloraError at the first prompt that the model's template refuses.

    Answers that are longer than those that the model may give are told, and a template that does
    not open the assistant's turn.
    """
    if any(encoder.prompter.templated(data.task.chat) for data in tasks):
        header = encoder.prompter.chats.unopened
        if header is not None:
            tell(
                "the model's chat template does not open the assistant's turn where it is asked to "
                f"(add_generation_prompt): answers are learned, and given, without {header!r}, "
                "which it writes before an answer"
            )
    for data in tasks:
        if not data.task.chat:  # prompts of one form: one tells of all
            encoder.prompts(data.train[:1])
            continue
        for split in (data.train, data.test):
            try:
                encoder.prompts(split)
            except NloraError:
                _name_refused(encoder, split)
                raise
        lengths = [len(encoder.answer_ids(e.label, chat=True)) for e in data.test]
        share = sum(n > max_new_tokens for n in lengths) / max(len(lengths), 1)
        if share > MANY:
            tell(
                f"task '{data.name}': {share:.0%} of its answers are longer than max_new_tokens "
                f"({max_new_tokens}), where answers are cut in tests and by `predict`; the longest "
                f"has {max(lengths)} tokens"
            )


def _piece(encoder: Encoder, label: str) -> str:
    """The first character of the label, quoted, that is unknown by itself; else all of it."""
    unknown = encoder.tokenizer.unk_token_id
    for character in label:
        if unknown in encoder.tokenizer(character, add_special_tokens=False).input_ids:
            return f"'{character}'"
    return "a piece"
