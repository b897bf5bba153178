"""Why our numbers may differ from the paper's: what of the runs is not what the paper had."""

from typing import Any

from nlora.paper.material import Material
from nlora.recipes import MODELS, fitting
from nlora.report.runs import Run


def explained(material: Material, model: str, methods: list[str]) -> list[str]:
    """What may explain differences to the paper's numbers for one of `recipes.MODELS`, in lines."""
    runs = [run for run in material.section.runs if run.label in methods and not run.error]
    if not runs:
        return ["nothing was run"]
    said = [_model(runs, model), _sizes(runs), _seeds(runs), *_settings(runs, model)]
    return [line for line in said if line]


def _model(runs: list[Run], model: str) -> str | None:
    titles = sorted({run.row["base"]["title"] for run in runs})
    if titles == [MODELS[model]]:
        return None
    return f"the model: {', '.join(titles)}; the paper's is {MODELS[model]}"


def _sizes(runs: list[Run]) -> str | None:
    found = {
        (r.row["configuration"]["max_train"], r.row["configuration"]["max_eval"]) for r in runs
    }
    cut = [
        f"{train or 'all'} training and {test or 'all'} test"
        for train, test in sorted(found, key=str)
    ]
    if found == {(None, None)}:
        return None
    return f"the data: {'; '.join(cut)} examples a task; the paper used all"


def _seeds(runs: list[Run]) -> str | None:
    seeds = {run.seed for run in runs}
    return None if len(seeds) >= 3 else f"chance: {len(seeds)} seed(s); the paper's are means of 3"


def _settings(runs: list[Run], model: str) -> list[str]:
    """Settings that are not the recipe's, and settings that were never published, by method."""
    said = []
    for label in dict.fromkeys(run.label for run in runs):
        own = [run for run in runs if run.label == label]
        different: dict[str, tuple[Any, Any]] = {}
        unpublished: set[str] = set()
        for run in own:
            recipe = fitting(run.row["configuration"]["method"], run.stream, model)
            if recipe is None:
                continue
            unpublished |= set(recipe.unpublished)
            for name, value in recipe.published.items():
                if name in run.settings and run.settings[name] != value:
                    different[name] = (run.settings[name], value)
        if different:
            pairs = [f"{name} {ours}, not {theirs}" for name, (ours, theirs) in different.items()]
            said.append(f"{label}: {', '.join(pairs)}")
        if unpublished:
            said.append(f"{label}: not published: {', '.join(sorted(unpublished))}")
    return said
