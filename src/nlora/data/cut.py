"""What of a text stays where not all of it may."""

import re
from collections.abc import Sequence

_FIELD = re.compile(r"^[A-Za-z][\w ]{0,30}:", re.MULTILINE)


def share_out(lengths: Sequence[int], budget: int) -> list[int]:
    """How much of each field stays when all of them together may have `budget` tokens.

    The longest field gives way first, until the next longest is as long, and so on.

    >>> share_out([50, 6, 4], 30)
    [20, 6, 4]
    >>> share_out([50, 40, 4], 30)
    [13, 13, 4]
    """
    kept = [0] * len(lengths)
    left = budget
    for rank, i in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        kept[i] = min(lengths[i], left // (len(lengths) - rank))
        left -= kept[i]
    return kept


def cut_fields(text: str, offsets: Sequence[tuple[int, int]], budget: int) -> str:
    """At most `budget` of the tokens that lie at these offsets, the longest field shortened."""
    if len(offsets) <= budget:
        return text
    starts = [m.start() for m in _FIELD.finditer(text)]
    starts = starts if starts and starts[0] == 0 else [0, *starts]
    stops = [*starts[1:], len(text)]
    fields = [
        [end for begin, end in offsets if start <= begin < stop]
        for start, stop in zip(starts, stops, strict=True)
    ]
    kept = share_out([len(ends) for ends in fields], budget)
    parts = []
    for start, stop, ends, count in zip(starts, stops, fields, kept, strict=True):
        if count == len(ends):
            parts.append(text[start:stop])
        else:
            parts.append(text[start : ends[count - 1]] + "\n" if count else "")
    return "".join(parts).rstrip("\n")
