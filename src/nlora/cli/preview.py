"""What `--dry-run` of `run` and `learn` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from nlora.cli.console import out, print_json, show
from nlora.data.balance import FREE, in_words
from nlora.visible import visible

if TYPE_CHECKING:
    from nlora.continual.preview import Preview, RenderedExample

PROMPTS = 10
"""Of so many tasks a prompt is printed; `--json` has all."""


def show_preview(seen: Preview, settings: dict[str, Any], json: bool) -> None:
    """Print a preview and, as JSON, the settings."""
    if json:
        print_json({**asdict(seen), "settings": settings})
        return
    columns = ["task", "train", "test", "labels", "majority (%)", "truncated (%)"]
    columns.append("longest (tokens)")
    rows = []
    for t in seen.tasks:
        most = None if t.majority is None else 100 * t.majority
        labels = FREE if t.labels is None else t.labels
        rows.append([t.name, t.train, t.test, labels, most, 100 * t.truncated, t.longest])
    show("tasks", columns, rows)
    for task in seen.tasks:
        told = [f"{task.name}: {in_words(task.counts)}"] if task.counts else []
        for line in [*told, *task.notes]:
            out.print(line, markup=False, highlight=False)
    show("stages", ["stage", "steps"], [list(stage) for stage in seen.stages])
    for example in seen.examples[:PROMPTS]:
        _show_prompt(example)
    more = [example.task for example in seen.examples[PROMPTS:]]
    if more:
        line = f"prompts of {len(more)} more tasks: --json has them ({', '.join(more)})\n"
        out.print(line, markup=False, highlight=False)
    for note in seen.notes:
        out.print(note, style="yellow", markup=False, highlight=False)
    if seen.adapted is not None:
        names = seen.adapted.modules
        listed = names if isinstance(names, str) else ", ".join(names)
        out.print(f"adapted: {listed} ({seen.adapted.reason})", markup=False, highlight=False)
    share = 100 * seen.trainable_parameters / seen.all_parameters
    out.print(f"trainable: {seen.trainable_parameters:,} parameters ({share:.2f} % of the model)")
    if (memory := seen.memory) is not None:
        named = {
            "weights": memory.weights,
            "optimiser": memory.optimizer,
            "a step": memory.step,
            "gaps of the heap": memory.gaps,
        }
        parts = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in named.items() if size)
        out.print(f"memory of training: {memory.total / 1e9:.2f} GB ({parts})", highlight=False)


def _show_prompt(example: RenderedExample) -> None:
    out.print(f"prompt of {example.task}", style="bold", markup=False, highlight=False)
    shown = Text()
    for text, counts in example.spans:
        shown.append(visible(text), style="green" if counts else "")
    out.print(shown, highlight=False)
    if example.answer_tokens:
        counted = " ".join(repr(token) for token in example.answer_tokens)
        line = f"counts in the loss: {counted}\n"
        out.print(line, style="green", markup=False, highlight=False)
    else:
        out.print("only tested: nothing counts in a loss\n", markup=False, highlight=False)
