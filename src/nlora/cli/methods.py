"""`nlora methods`: the methods, their settings and defaults."""

from typing import Annotated, Any

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, show

FREE = [
    ["penalty", "none, l1, l1-a, l1-b, l1-ab, released, frobenius, column-row",
     "what is added to the loss for the new update", ""],
    ["consolidation", "sum, largest", "how updates make one model", ""],
    ["consolidation", "none", "each update stands alone", "storage per task"],
    ["routing", "none", "the newest model answers", ""],
    ["routing", "input", "the model after the task that the input is taken for",
     "storage per task"],
    ["routing", "told", "the model after the task that is named",
     "task identity, storage per task"],
]  # fmt: skip
"""The space that methods over LoRA adapters are points of (`nlora.methods.lora`)."""


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, with its settings.")] = None,
    recipes: Annotated[
        bool, typer.Option("--recipes", help="List the published settings by model and order.")
    ] = False,
    plugin: o.Plugin = None,
    json: o.Json = False,
) -> None:
    """List the methods, or show one with its settings, defaults and paper."""
    from nlora.methods.registry import method as find
    from nlora.methods.registry import methods as all_methods

    if recipes:
        _recipes(json)
    elif name is not None:
        _one(_describe(find(name, plugin)), json)
    else:
        found = [_describe(entry) for entry in all_methods(plugin).values()]
        if json:
            print_json(found)
            return
        rows = [
            [m["name"], m["carrier"], _needs(m), "yes" if m["mergeable"] else "no", m["summary"]]
            for m in found
        ]
        show("methods", ["method", "carrier", "needs", "mergeable", "what it does"], rows)
        show(
            "settings of every LoRA method, to be combined",
            ["setting", "values", "what it is", "needs"],
            FREE,
        )
        out.print("no method needs dev data; `nlora methods NAME` shows all settings of one")


def _describe(entry: Any) -> dict[str, Any]:
    built = entry.build({})
    fields = entry.kind.Settings.model_fields
    return {
        "name": entry.name,
        "summary": entry.summary,
        "paper": entry.kind.paper,
        "carrier": built.carrier,
        "needs_task_id": built.needs_task_id,
        "needs_old_data": entry.kind.needs_old_data,
        "storage_grows": built.storage_grows,
        "mergeable": built.mergeable,
        "settings": [
            {
                "name": key,
                "default": getattr(built.settings, key),
                "description": field.description,
            }
            for key, field in fields.items()
        ],
        "run_settings": built.run_defaults(),
    }


def _needs(described: dict[str, Any]) -> str:
    needs = {
        "needs_task_id": "task identity",
        "needs_old_data": "old data",
        "storage_grows": "storage per task",
    }
    return ", ".join(words for key, words in needs.items() if described[key])


def _one(described: dict[str, Any], json: bool) -> None:
    from nlora.training.config import RunSettings

    if json:
        print_json(described)
        return
    out.print(f"{described['name']}: {described['summary']}", markup=False, highlight=False)
    out.print(f"paper: {described['paper']}", markup=False, highlight=False)
    needs = _needs(described) or "nothing but the task's own data"
    merged = "mergeable into one model" if described["mergeable"] else "not mergeable"
    out.print(f"carrier: {described['carrier']}; needs: {needs}; {merged}\n")
    rows = [[s["name"], str(s["default"]), s["description"]] for s in described["settings"]]
    show("its own settings", ["setting", "default", "what it is"], rows)
    rows = [
        [key, str(described["run_settings"].get(key, field.default)), field.description]
        for key, field in RunSettings.model_fields.items()
    ]
    show("run settings", ["setting", "default", "what it is"], rows)


def _recipes(json: bool) -> None:
    from nlora.recipes import recipes as all_recipes

    found = list(all_recipes().values())
    if json:
        print_json([recipe.model_dump(mode="json") for recipe in found])
        return
    rows = [[r.name, r.method, r.stream, r.description] for r in found]
    show("recipes", ["recipe", "method", "stream", "what it is"], rows)
