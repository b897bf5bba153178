"""Exact match after normalisation, and when a growing answer can no longer become a label."""

from collections.abc import Iterable

from nlora.data.examples import normalise

__all__ = ["Options", "normalise"]


class Options:
    """The labels of a task, to tell whether a text that still grows can become one of them."""

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels = {_fold(normalise(label)) for label in labels}

    def reachable(self, text: str) -> bool:
        """Whether some continuation of `text` normalises to a label; may say yes too often.

        Normalising only ever appends to what stands already, with two exceptions, which are
        folded away: a last character whose bytes are not complete yet, and the Greek final sigma.
        """
        so_far = _fold(normalise(text.rstrip("\ufffd")))
        return any(label.startswith(so_far) for label in self.labels)


def _fold(text: str) -> str:
    return text.replace("ς", "σ")
