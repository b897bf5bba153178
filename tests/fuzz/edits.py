"""What somebody may have done to a file: strategies for hypothesis, and how many are tried."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EACH = settings(
    max_examples=1000 if settings().max_examples >= 1000 else 25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""Of each test 25 examples, more than 200 in all; with HYPOTHESIS_PROFILE=nightly (`make fuzz`)
1,000, more than 10,000 in all."""

NASTY = (
    *(None, True, False, 0, -1, 1, 2**63, -(10**400), 0.5, 1e308, -1e308, float("nan")),
    *(float("inf"), "", "x", "0", "\0", "../..", "/etc/passwd", "\ud800", "\x1b[2J", "a" * 5000),
    *(
        "9" * 5000,
        "99999999999:ff",
        "8:ff",
        "8:f",
        [],
        {},
        [[]],
        [None],
        {"": None},
        {"a": {"b": 1}},
    ),
)
DEEP: Any = "bottom"
for _ in range(150):
    DEEP = [DEEP]

_plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_values = (
    st.sampled_from(NASTY)
    | st.just(DEEP)
    | st.recursive(
        _plain,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    )
)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside of another one, down to some depth."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inside:
        yield (*way, key)
        if isinstance(item, dict | list) and len(way) < 8:
            yield from places(item, (*way, key))


@st.composite
def edited(draw: Any, value: Any, most: int = 3) -> Any:
    """A JSON value, some values in which are others, are gone, or have another name."""
    changed = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        found = list(places(changed))
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        inside = changed
        for key in way:
            inside = inside[key]
        kind = draw(st.sampled_from(("replaced", "replaced", "gone", "renamed")))
        if kind == "replaced":
            inside[last] = copy.deepcopy(draw(_values))
        elif kind == "gone" or isinstance(inside, list):
            del inside[last]
        else:
            inside[draw(st.text(max_size=8))] = inside.pop(last)
    return changed


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of which some are others, are gone, or stand twice; or any bytes at all."""

    @st.composite
    def changed(draw: Any) -> bytes:
        found = bytearray(data)
        for _ in range(draw(st.integers(1, 4))):
            first = draw(st.integers(0, max(len(found) - 1, 0)))
            last = draw(st.integers(first, min(first + 20, len(found))))
            kind = draw(st.sampled_from(("other", "gone", "twice", "end")))
            if kind == "other":
                found[first:last] = draw(st.binary(max_size=8))
            elif kind == "gone":
                del found[first:last]
            elif kind == "twice":
                found[last:last] = found[first:last]
            else:
                del found[first:]
        return bytes(found)

    return changed() | st.binary(max_size=60)


def as_json(value: Any) -> bytes:
    """As Python's json writes it, which has NaN, and half characters as escapes."""
    return json.dumps(value).encode()
