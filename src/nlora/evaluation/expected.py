"""What an answer is expected to be: one of its task's labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from nlora.data.encode import Encoder
from nlora.evaluation.normalise import Options


@dataclass(frozen=True)
class Expected:
    """The labels that an answer may become, or any text."""

    options: Options | None = None
    labels: Sequence[list[int]] = ()
    """Their token ids, without the end token."""

    @classmethod
    def of(cls, labels: Sequence[str], encoder: Encoder, chat: bool = False) -> "Expected":
        """One of these labels, of a task of chats or not."""
        ids = [list(encoder.answer_ids(label, chat))[:-1] for label in labels]
        return cls(Options(labels), ids)

    def reachable(self, text: str) -> bool:
        """Whether a text can still become what is expected."""
        return self.options is None or self.options.reachable(text)

    def draft(self, so_far: list[int]) -> list[int]:
        """The rest of the first label that begins with these tokens, or nothing."""
        count = len(so_far)
        return next((ids[count:] for ids in self.labels if ids[:count] == so_far), [])


ANYTHING = Expected()
