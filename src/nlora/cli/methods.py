"""`nlora methods`: the methods, their settings and defaults."""

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, show
from nlora.errors import NloraError

FREE = [
    {"setting": "penalty", "values": "none, l1, l1-a, l1-b, l1-ab, released, frobenius, column-row",
     "what it is": "what is added to the loss for the new update", "needs": "", "mergeable": "yes"},
    {"setting": "consolidation", "values": "sum, largest, retract, ties, dare, magnitude",
     "what it is": "how updates make one model", "needs": "", "mergeable": "yes"},
    {"setting": "consolidation", "values": "none",
     "what it is": "each update stands alone", "needs": "storage per task", "mergeable": "no"},
    {"setting": "routing", "values": "none",
     "what it is": "the newest model answers", "needs": "", "mergeable": "yes"},
    {"setting": "routing", "values": "input",
     "what it is": "the model after the task that the input is taken for",
     "needs": "storage per task", "mergeable": "no"},
    {"setting": "routing", "values": "task",
     "what it is": "the model after the task that is named",
     "needs": "task identity, storage per task", "mergeable": "no"},
]  # fmt: skip
"""The space that methods over LoRA adapters are points of (`nlora.methods.parts.lora`)."""


def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="One method and all its settings; as inc-lora:routing=input, too."),
    ] = None,
    recipes: Annotated[
        bool, typer.Option("--recipes", help="List the published settings by model and order.")
    ] = False,
    plugin: o.Plugin = None,
    json: o.Json = False,
) -> None:
    """List the methods, or show one with its settings, defaults and paper."""
    from nlora.methods.registry import methods as all_methods

    if recipes:
        _recipes(json)
    elif name is not None:
        _one(_describe(name, plugin), json)
    else:
        found = [_describe(known, plugin) for known in all_methods(plugin)]
        if json:
            print_json(
                {
                    "methods": found,
                    "settings of every LoRA method": FREE,
                    "settings of every method": _of_every_method(),
                }
            )
            return
        rows = [
            [m["name"], m["adapter"], _needs(m), "yes" if m["mergeable"] else "no", m["summary"]]
            for m in found
        ]
        show("methods", ["method", "adapter", "needs", "mergeable", "what it does"], rows)
        show(
            "settings of every LoRA method, to be combined",
            list(FREE[0]),
            [list(row.values()) for row in FREE],
        )
        rows = [[s["name"], str(s["default"]), s["description"]] for s in _of_every_method()]
        show(
            "settings of every method that trains on data",
            ["setting", "default", "what it is"],
            rows,
        )
        out.print("no method needs dev data; `nlora methods NAME` shows all settings of one")


def _describe(label: str, plugin: Path | None) -> dict[str, Any]:
    """A method as it stands with the settings after its colon."""
    from nlora.plan.config import RunConfig
    from nlora.plan.points import parse_points
    from nlora.plan.resolve import choose

    file = str(plugin) if plugin else None
    points = parse_points([label], file)
    if len(points) != 1:
        raise NloraError(f"'{label}' is {len(points)} methods; name one")
    [point] = points
    any_model = RunConfig(model="any", method=point.method, plugin=file, settings=point.settings)
    chosen = choose(any_model)
    built, entry = chosen.method, chosen.entry
    return {
        "name": point.label,
        "summary": entry.summary,
        "paper": entry.kind.paper,
        "adapter": built.adapter,
        "needs_task_id": built.needs_task_id,
        "needs_old_data": built.needs_old_data,
        "needs_dev_data": False,
        "storage_grows": built.storage_grows,
        "mergeable": built.mergeable,
        "settings": [
            {
                "name": key,
                "default": getattr(built.settings, key),
                "description": field.description,
            }
            for key, field in entry.kind.Settings.model_fields.items()
        ],
        "run_settings": chosen.run.model_dump(mode="json"),
    }


def _of_every_method() -> list[dict[str, Any]]:
    from nlora.methods.settings import Settings

    return [
        {"name": name, "default": field.default, "description": field.description}
        for name, field in Settings.model_fields.items()
    ]


def _needs(described: dict[str, Any]) -> str:
    needs = {
        "needs_task_id": "task identity",
        "needs_old_data": "old data",
        "storage_grows": "storage per task",
    }
    return ", ".join(words for key, words in needs.items() if described[key])


def _one(described: dict[str, Any], json: bool) -> None:
    from nlora.plan.settings import RunSettings

    if json:
        print_json(described)
        return
    out.print(f"{described['name']}: {described['summary']}", markup=False, highlight=False)
    if described["paper"]:
        out.print(f"paper: {described['paper']}", markup=False, highlight=False)
    needs = _needs(described) or "nothing but the task's own data"
    merged = "mergeable into one model" if described["mergeable"] else "not mergeable"
    out.print(f"adapter: {described['adapter']}; needs: {needs}; {merged}\n")
    rows = [[s["name"], str(s["default"]), s["description"]] for s in described["settings"]]
    show("its own settings", ["setting", "default", "what it is"], rows)
    rows = [
        [key, str(described["run_settings"][key]), field.description]
        for key, field in RunSettings.model_fields.items()
    ]
    show("run settings", ["setting", "default", "what it is"], rows)
    out.print("a method of your own: one class in one file, --plugin FILE; see docs/methods.md")


def _recipes(json: bool) -> None:
    from nlora.recipes import recipes as all_recipes

    found = list(all_recipes().values())
    if json:
        print_json([recipe.model_dump(mode="json") for recipe in found])
        return
    rows = []
    for name, group in groupby(found, key=lambda r: f"{r.method}-{r.model}"):
        orders = list(group)
        published = {key for r in orders for key in r.published}
        chosen = {key for r in orders for key in r.unpublished}
        span = f"{name}-order-1" + (f" … {len(orders)}" if len(orders) > 1 else "")
        rows.append([span, len(published), len(chosen), orders[0].source])
    show("recipes", ["recipe", "published", "chosen", "source"], rows)
    out.print(
        "chosen: settings that were not published, and are filled in (--json has all values and "
        "why); use: `nlora run --recipe NAME`, `nlora compare --recipe auto`"
    )
