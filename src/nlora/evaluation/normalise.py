"""Exact match after normalisation, and when a growing answer can no longer become a label."""

from collections.abc import Iterable

from nlora.data.comparing import comparison, normalise

__all__ = ["Options", "comparison", "normalise"]


class Options:
    """The labels of a task, to tell whether a text that still grows can become one of them."""

    def __init__(self, labels: Iterable[str]) -> None:
        labels = tuple(labels)
        self.compared = comparison(labels)
        self.labels = {_fold(self.compared(label)) for label in labels}

    def reachable(self, text: str) -> bool:
        """Whether some continuation of `text` compares equal to a label; may say yes too often.

        Normalising only ever appends to what stands already, with two exceptions, which are
        folded away: a last character whose bytes are not complete yet, and the Greek final sigma.
        """
        so_far = _fold(self.compared(text.rstrip("\ufffd")))
        return any(label.startswith(so_far) for label in self.labels)


def _fold(text: str) -> str:
    return text.replace("ς", "σ")
