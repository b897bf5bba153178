"""Words of any script, where rouge-score knows those of English letters and digits alone."""

import re
import unicodedata

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Kana and Chinese characters, each of them a word."""
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")


def words(text: str) -> list[str]:
    """The words of a text, in order; of Chinese and Japanese the characters.

    >>> words("हिन्दी, 北京!")
    ['हिन्दी', '北', '京']
    """
    return _WORD.findall("".join(c if _in_word(c) else " " for c in text))


def words_and_marks(text: str) -> list[str]:
    """The same, each character that is neither in a word nor a space by itself between them.

    >>> words_and_marks("It is so.")
    ['It', 'is', 'so', '.']
    """
    return _WORD.findall("".join(c if _in_word(c) or c.isspace() else f" {c} " for c in text))


def apart(text: str) -> str:
    """The text with spaces around Chinese and Japanese characters, which are words.

    >>> apart("in 北京 now")
    'in 北 京 now'
    """
    return " ".join(re.sub(f"([{_CJK}])", r" \1 ", text).split())


class Words:
    """A tokenizer for rouge-score: lower-case words; of Chinese and Japanese the characters.

    English words are rouge-score's own. With `stem` they are stemmed as rouge-score stems them.
    """

    def __init__(self, stem: bool) -> None:
        self._stemmer = None
        if stem:
            from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

            self._stemmer = PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, in order."""
        found = words(text.lower())
        if self._stemmer is None:
            return found
        return [self._stemmer.stem(word) if len(word) > 3 else word for word in found]


def _in_word(character: str) -> bool:
    """Whether it is a letter, a digit, or a mark on one (the vowels of Hindi are marks)."""
    return character.isalnum() or unicodedata.category(character).startswith("M")
