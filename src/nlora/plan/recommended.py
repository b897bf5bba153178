"""What people get who do not choose a method, and why."""

from typing import Any

from nlora.errors import option

METHOD = "inc-lora"
SETTINGS = {"routing": "input"}


def why() -> str:
    """What to say where it is taken."""
    return (
        f"without {option('method')}: inc-lora with routing=input, an adapter per task, found by "
        "the text, which forgets least of all that need no old data. It costs up to 2.5 times as "
        f"long to answer and cannot be exported as one model; {option('method', METHOD)} can, and "
        "forgets more"
    )


def chosen(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration without a method, with the one that is recommended; its settings win."""
    settings = {**SETTINGS, **(values.get("settings") or {})}
    return {**values, "method": METHOD, "settings": settings}
