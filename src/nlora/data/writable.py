"""Whether a tokenizer can write a task's labels and read its texts: what it has no piece for."""

from collections.abc import Callable, Sequence

from nlora.data.encode import TOGETHER, Encoder
from nlora.data.task import TaskData
from nlora.errors import NloraError

MANY = 0.05
"""The share of unknown tokens in a task's texts from which on it is told."""
MOST = 0.5
"""The share from which on a model cannot learn from them."""


def check_writable(
    encoder: Encoder, tasks: Sequence[TaskData], tell: Callable[[str], object] = lambda text: None
) -> None:
    """Raises NloraError at a label with a piece that the tokenizer reads as unknown, and where more
    than half of the tokens of a task's texts are (of its first training texts); many are told."""
    unknown = encoder.tokenizer.unk_token_id
    if unknown is None:
        return
    for data in tasks:
        for label in data.task.labels or ():
            if unknown in encoder.answer_ids(label)[:-1]:
                raise NloraError(
                    f"task '{data.name}': the model's tokenizer cannot write "
                    f"{_piece(encoder, label)} of label '{label}'; rename the label or take "
                    "another model"
                )
        texts = [e.text for e in data.train[:TOGETHER]]
        if not texts:
            continue
        rows = encoder.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
        tokens = [token for row in rows for token in row]
        share = tokens.count(unknown) / max(len(tokens), 1)
        told = (
            f"task '{data.name}': {share:.0%} of the tokens of its texts are unknown to the model"
        )
        if share > MOST:
            raise NloraError(f"{told}; take a model that knows this language")
        if share > MANY:
            tell(told)


def _piece(encoder: Encoder, label: str) -> str:
    """The first character of the label, quoted, that is unknown by itself; else all of it."""
    unknown = encoder.tokenizer.unk_token_id
    for character in label:
        if unknown in encoder.tokenizer(character, add_special_tokens=False).input_ids:
            return f"'{character}'"
    return "a piece"
