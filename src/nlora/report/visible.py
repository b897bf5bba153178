"""Texts from data, made visible: a label must not move the cursor or colour the terminal."""

import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters (but tab and end of line), changes of direction, and half characters."""


def visible(text: str) -> str:
    r"""The text with what a terminal would obey written out.

    >>> print(visible("a\x1b[31mred\r\u202e"))
    a\x1b[31mred\r\u202e
    """
    return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)


def visible_json(text: str) -> str:
    """`visible` of JSON, which stays JSON of the same value: strings alone can hold such."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
