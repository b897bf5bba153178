"""What the guard of `nlora learn` found, and the commands that decide what becomes of a stage."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, progress, show, show_results

NOT_MATCHED = "Answers to earlier tasks were not matched"
REFUSED = 3
"""The exit status where a stage costs too much."""

MaxForgetting = Annotated[
    float,
    typer.Option(
        "--max-forgetting",
        metavar="POINTS",
        help="The stage stands only if no earlier or watched task loses more, beyond chance; 100: "
        "whatever they lose.",
    ),
]
RepairMode = Annotated[
    str,
    typer.Option(
        "--repair",
        metavar="offer|auto|off",
        help="What is done about a stage that costs too much: it is scaled back, or answers to "
        "earlier tasks are matched, to be taken by `nlora accept --repair` (offer) or at once "
        "where the new task keeps 90 % of what it gained and no other was measured to lose more "
        "(auto).",
    ),
]


def show_refusal(model_dir: Path, name: str, found: dict[str, Any]) -> None:
    """What would be lost, some answers that turned wrong, what scaling back does, what to do."""
    columns = ["task", "tests", "before", "now", "lost", "95 % interval", "too far"]
    rows = [
        [
            *(f[key] for key in ("task", "tests", "before", "now", "lost")),
            f"{f['low']:.1f} to {f['high']:.1f}",
            "yes" if f["too_far"] else "",
        ]
        for f in found["falls"]
    ]
    bound = found["bound"]
    show(f"What '{name}' would cost, in points (at most {bound:g})", columns, rows)
    _say_of_chance(any(f["lost"] > bound and not f["too_far"] for f in found["falls"]))
    if own := found.get("own"):
        _say(f"On the {own['tests']} tests of its own data it reaches {own['accuracy']:.1f} %.\n")
    for task, answers in found["turned"].items():
        _say(f"Answers to '{task}' that turned wrong:")
        for a in answers:
            _say(f"  {_short(a['text'])}")
            _say(
                f"    right: {_short(a['label'])}; before: {_short(a['before'])}; now: "
                f"{_short(a['now'])}"
            )
        _say("")
    _show_repair(name, found)
    _say("What could be tried, after `nlora discard`:")
    for line in found["advice"]:
        _say(f"  {line}")
    _say("")
    best = found.get("repair", {}).get("best")
    lost = _lost(best, found) if best else ""
    _say(f"'{name}' is trained and not in force. None of these trains again:")
    _say(f"  nlora accept {model_dir}   lets it stand as it is")
    if best:
        how = "with matched answers" if best.get("matched") else "scaled back"
        _say(f"  nlora accept {model_dir} --repair   lets it stand {how}{lost and f', and {lost}'}")
    _say(f"  nlora discard {model_dir}   removes it")


def _say_of_chance(beyond: bool) -> None:
    """Say why a loss beyond the bound may stand, where one does."""
    if beyond:
        from nlora.continual.guard import FEWEST

        _say(
            "A fall counts only where its 95 % interval lies beyond the bound, and at least "
            f"{FEWEST} answers became worse.\n"
        )


def _show_repair(name: str, found: dict[str, Any]) -> None:
    tried, bound = found.get("repair", {}), found["bound"]
    for key, what in (("not", "Its update was not scaled back"), ("unmatched", NOT_MATCHED)):
        if key in tried:
            _say(f"{what}: {tried[key]}.\n")
    if "curve" not in tried:
        return
    without = tried["without"]
    rows: list[list[Any]] = [["0 (without it)", without, 0.0, None, None, "yes"]]
    beyond = False
    for one in sorted(tried["curve"], key=_order):
        worst, (lost, low, high) = max(one["lost"].items(), key=lambda pair: pair[1][0])
        interval, passes = f"{low:.1f} to {high:.1f}", "yes" if one["passes"] else ""
        rows.append([_words(one), one["new"], lost, interval, worst, passes])
        beyond |= one["passes"] and lost > bound
    columns = ["scale", name, "lost", "95 % interval", "by", "in bound"]
    title = "Repaired without training (a | b | c: scales of the first, middle, last layers)"
    show(title, columns, rows)
    if beyond:
        _say("A repair is in bound where its 95 % interval does not lie wholly beyond it.\n")
    if best := tried["best"]:
        gain = f"'{name}' keeps {tried['kept']:.0%} of its gain"
        if lost := _lost(best, found):
            _say(
                f"No repair that gains anything was measured to lose at most {bound:g}. Of those "
                f"in bound by their interval {_words(best)} gains most: {gain}, and {lost}. To "
                "discard it loses nothing; more test rows would tell.\n"
            )
        else:
            _say(f"Best: {_words(best)}; {gain}.\n")
    else:
        _say("Nothing is left to offer: no repair leaves it any gain and costs little enough.\n")


def _lost(one: dict[str, Any], found: dict[str, Any]) -> str:
    """What a repair was measured to lose beyond the bound, in words; nothing where that is none."""
    tests = {fall["task"]: fall["tests"] for fall in found["falls"]}
    far = {task: lost for task, (lost, *_) in one["lost"].items() if lost > found["bound"]}
    each = [f"{task} loses {lost:.1f} points of {tests[task]} tests" for task, lost in far.items()]
    return f"{', '.join(each)}, too few to tell" if each else ""


def _order(one: dict[str, Any]) -> tuple[Any, ...]:
    return one.get("matched", False), sum(one["scales"]), one["scales"]


def _words(one: dict[str, Any]) -> str:
    """A repair; those of records of earlier versions are scales alone."""
    from nlora.continual.repair import in_words

    return "1, matched" if one.get("matched") else in_words(one["scales"])


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False)


def _short(text: str) -> str:
    return textwrap.shorten(text, 120, placeholder=" …") or "(nothing)"


def accept(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Take it as it is repaired: scaled back, or answers matched."
        ),
    ] = False,
    json: o.Json = False,
) -> None:
    """Let a stage stand that the guard of `nlora learn` has refused. Nothing is trained again."""
    from nlora.continual.holding import accept as accept_stage
    from nlora.continual.holding import held
    from nlora.store.directory import ModelDirectory

    waited = held(ModelDirectory(model_dir)) is not None
    results = accept_stage(model_dir, repair, progress())
    if json:
        print_json(results)
    elif waited:
        show_results(results)


def discard(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
) -> None:
    """Remove a stage that the guard of `nlora learn` has refused; the model stays as it is."""
    from nlora.continual.holding import discard as discard_stage

    discard_stage(model_dir, progress())
