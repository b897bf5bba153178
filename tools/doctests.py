"""Doctests in docstrings as code, where the reference is made of them (an extension of Griffe)."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", flags=re.MULTILINE)


class Doctests(griffe.Extension):
    """Markdown would take `>>>` for quotations."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Fence the doctests of one function, class or module."""
        if obj.docstring is not None:
            fenced = _DOCTEST.sub(lambda found: f"```python\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = fenced
