"""What a page says at its top, in plain words: what was learned and forgotten, by how much."""

from collections import Counter

from nlora.page.measures import falls, learned_at, mean_matrix, stages_of, untrained
from nlora.report.accuracy import over_seeds
from nlora.report.differences import differences
from nlora.report.footnotes import MEANINGS, needs
from nlora.report.runs import Run, Section
from nlora.report.table import Name, Value
from nlora.report.tables import BASELINE

POINT = 1.0
"""Less than so many points is not called a loss."""

FEW = 10.0
"""From so many per cent of answers off the list it is said that the form was lost."""

_LISTED = 3


def told(section: Section) -> list[str]:
    """Sentences about a section; none where no run of it has a number."""
    finished = [run for runs in section.cells.values() for run in runs]
    if not finished:
        return []
    if len(finished) == 1:
        return _of_one(finished[0])
    said = [" ".join(_of_stream(section, stream)) for stream in section.streams]
    if len({run.seed for run in finished}) == 1:
        said.append("With one seed a difference of a few points may be chance.")
    return [*filter(None, said), *_against(section)]


def _of_one(run: Run) -> list[str]:
    row, at = run.row, learned_at(run)
    tasks, matrix = row["tasks"], row["accuracy_matrix"]
    title = row["base"].get("title") or "the model"
    said = []
    if (before := untrained(run)) is not None:
        said.append(f"Before any training {title} answers {before:.1f} % of test examples right.")
    if not matrix:
        return [*said, "Nothing was trained."]
    learned = [name for name in tasks if name in at]
    average, learning = row["average_accuracy"], row["learning_accuracy"]
    if len(learned) > 1:
        said.append(
            f"{run.label} taught {title} {len(learned)} tasks, one after another: "
            f"{', '.join(learned)}."
        )
    elif learned:
        said.append(f"{run.label} taught {title} one task so far: {learned[0]}.")
    else:
        named = ", ".join(run.trained)
        said.append(f"{run.label} taught {title} {len(run.trained)} tasks at once: {named}.")
    if learning is not None and average is not None and len(learned) > 1:
        said.append(
            f"Right after each task it answered {learning:.1f} % of that task's test examples "
            f"right, the mean over tasks; now, after the last one, {average:.1f} %."
        )
    elif average is not None:
        said.append(f"It answers {average:.1f} % of their test examples right.")
    gone = [n for n in learned if matrix[-1][tasks.index(n)] is None]
    if gone:
        said.append(f"Not in the model any more: {', '.join(gone)}.")
    return [*said, *_losses(run, learned)]


def _losses(run: Run, names: list[str]) -> list[str]:
    """What of the earlier tasks was forgotten, and which answers are no answers any more."""
    row, found = run.row, {n: pair for n, pair in falls(run).items() if n in names}
    if not found:
        return []
    drops = {name: best - now for name, (best, now) in found.items()}
    came_again = {
        name for name, count in Counter(n for n, _ in stages_of(run)).items() if count > 1
    }
    lost = sorted((n for n in drops if drops[n] >= POINT), key=lambda name: -drops[name])
    said = [] if row["forgetting"] is None else [_forgetting(row["forgetting"])]
    if lost:
        shown = [
            f"{n} fell from {found[n][0]:.1f} to {found[n][1]:.1f} %"
            + (" (tests of its earlier stages)" if n in came_again else "")
            for n in lost[:_LISTED]
        ]
        more = f", and {len(lost) - _LISTED} more fell" if len(lost) > _LISTED else ""
        said.append(f"{'; '.join(shown)}{more}.")
    kept = [name for name in found if name not in lost]
    if kept:
        said.append(f"Within a point of the best, or above: {', '.join(kept)}.")
    off = (row.get("off_list") or {}).get("matrix") or []
    for name in lost[:_LISTED]:
        share = off[-1][row["tasks"].index(name)] if off else None
        if share is not None and share >= FEW:
            said.append(
                f"{share:.0f} % of the answers to {name} are none of its labels now: there the "
                "form of the answer was lost, which does not say that the knowledge was (nlora "
                "explain tells them apart)."
            )
    return said


def _forgetting(points: float) -> str:
    """Forgetting in words: a fall from the best before, or a rise above it."""
    if points < 0:
        return (
            f"Forgetting is {points:.1f} points, below zero: the earlier tasks are above their "
            f"earlier best now, by {-points:.1f} points on average."
        )
    return (
        f"Forgetting is {points:.1f} points: so far did the earlier tasks fall from their best, on "
        "average."
    )


def _of_stream(section: Section, stream: str) -> list[str]:
    """Which methods kept most, learned most and forgot least on a stream."""
    kept = _ranked(section, stream, "average_accuracy")
    if not kept:
        return []
    runs = section.of(next(iter(kept)), stream)
    seeds = sorted({run.seed for label in kept for run in section.of(label, stream)})
    counted = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]} alone"
    names = list(kept)
    said = [
        f"On {stream} ({len(runs[0].trained)} tasks, {counted}) the model taught with "
        f"{_with_needs(section, names[0])} answers most right at the end, "
        f"{_value(kept[names[0]])} %"
        + (f"; least, {_value(kept[names[-1]])} %, with {names[-1]}." if len(names) > 1 else ".")
    ]
    forgotten = _ranked(section, stream, "forgetting", most=False)
    learned = _ranked(section, stream, "learning_accuracy")
    if len(forgotten) > 1:
        first, *_, last = forgotten
        worst = _most_lost(section, last, stream)
        said.append(
            f"{first} forgot least ({_value(forgotten[first])} points from the best of each "
            f"earlier task), {last} most ({_value(forgotten[last])}{worst})."
        )
        best = next(iter(learned), None)
        if best and first in learned and learned[best].mean - learned[first].mean > 5:
            said.append(
                f"But {first} had learned less: right after each task {_value(learned[first])} % "
                f"were right, with {best} {_value(learned[best])} %. What is not learned cannot be "
                "forgotten."
            )
    before = next((found for run in runs if (found := untrained(run)) is not None), None)
    if before is not None:
        said.append(f"The untrained model answers {before:.1f} % right.")
    return said


def _with_needs(section: Section, label: str) -> str:
    """A method's name, and what it needs that others do not."""
    needed = needs(section, label)
    said = [meaning for name, meaning in MEANINGS.items() if needed.get(name)]
    return f"{label} ({'; '.join(said)})" if said else label


def _most_lost(section: Section, label: str, stream: str) -> str:
    """Which task fell most from right after it was learned to the end, the mean over seeds."""
    runs = section.of(label, stream)
    matrix, at = mean_matrix(runs), learned_at(runs[0])
    falls = {
        name: (then - now, f"{name} fell from {then:.1f} to {now:.1f} %")
        for i, name in enumerate(runs[0].row["tasks"])
        if name in at
        and (then := matrix[at[name]][i]) is not None
        and (now := matrix[-1][i]) is not None
    }
    worst, said = max(falls.values(), default=(0.0, ""))
    return f": {said}" if worst >= POINT else ""


def _against(section: Section) -> list[str]:
    """Which methods are better or worse than the baseline beyond their intervals."""
    table = differences(section, BASELINE)
    if table is None:
        return []
    found: dict[str, list[str]] = {"better": [], "worse": [], "neither": []}
    for name, average, *_ in table.rows:
        if isinstance(name, Name) and isinstance(average, Value):
            low, high = average.low or 0.0, average.high or 0.0
            how = "better" if low > 0 else "worse" if high < 0 else "neither"
            shown = name.label if how == "neither" else f"{name.label} ({average.mean:+.1f} points)"
            found[how].append(shown)
    said = [
        f"{how.capitalize()} than {BASELINE} at the end, beyond the bootstrap interval: "
        f"{', '.join(found[how])}."
        for how in ("better", "worse")
        if found[how]
    ]
    if found["neither"]:
        said.append(f"Not to be told from {BASELINE} by these runs: {', '.join(found['neither'])}.")
    return said


def _ranked(section: Section, stream: str, name: str, most: bool = True) -> dict[str, Value]:
    """The methods on a stream by a metric, the best first."""
    found = {
        label: value
        for label in section.methods
        if (value := over_seeds(section.of(label, stream), lambda run: run.row[name])) is not None
    }
    ordered = sorted(found, key=lambda label: found[label].mean, reverse=most)
    return {label: found[label] for label in ordered}


def _value(value: Value) -> str:
    return value.text()
