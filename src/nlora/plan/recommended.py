"""What people get who do not choose a method, and why."""

from typing import Any

from nlora.errors import option

METHOD = "inc-lora"
SETTINGS = {"routing": "input"}

WHY = (
    "no --method: inc-lora with routing=input. Each task keeps an adapter of its own, found "
    "by the text. Of all methods that need no old data it forgot least here (0.0 points; "
    "3 and more where one model answers all) at the best accuracy (docs/results/README.md). It "
    "costs an adapter per task, up to 2.5 times as long to answer, and no export as one model "
    f"({option('method', METHOD)} makes one model, and forgets more)"
)


def chosen(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration without a method, with the one that is recommended; its settings win."""
    settings = {**SETTINGS, **(values.get("settings") or {})}
    return {**values, "method": METHOD, "settings": settings}
