"""When does the parameter space fill up? Collisions and interference against the number of tasks.

Updates of one matrix of N = size² entries are drawn task after task, with a share s of the entries
in each support. Three kinds of support, each at every density:

independent     entries and their positions are independent (what Theorem 2 assumes)
low-rank        the s·N largest entries of B·A; rows of B differ in scale, each task in its own way
shared rows     the same, but the same rows are large for every task

Closed forms for independent supports after T tasks, beside the simulation:

acr             ACR (Eq. 10) = s²: it does not grow with T, so it cannot show exhaustion
used            positions in at least one support = 1 − (1 − s)^T
twice           positions in at least two = 1 − (1 − s)^T − T·s·(1 − s)^(T−1)
newcomer        share of the newest support that an earlier task uses = 1 − (1 − s)^(T−1)
interference    energy of all other updates on the newest support, per energy of the newest there
                = (T − 1)·s·E[x²]/E[x²] = (T − 1)·s
input space     of rank-r updates, share of the newest input space that lies in the span of the
                earlier ones = min(1, (T − 1)·r/size): what O-LoRA has to keep at 0

The densities and the spread of row scales by default are those of adapters of SmolLM2-135M trained
by `inc-lora` on order 1 (entries above 0.1, 1, 2 and 3 times the root mean square), and 0.001 for
what sparsity could reach.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlora.analysis.adapters import read_adapters
from nlora.errors import NloraError
from nlora.lowrank.supports import Threshold, collisions

DENSITIES = (0.89, 0.26, 0.057, 0.012, 0.001)
SPREAD = 0.4

THRESHOLDS = ("0.1rms", "1rms", "2rms", "3rms")
KINDS = ("independent", "low-rank", "shared rows")
MEASURES = ("acr", "used", "twice", "newcomer", "interference")

Row = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """What is simulated: the matrix, the updates, and how many of them."""

    tasks: int = 10_000
    size: int = 256
    rank: int = 8
    spread: float = SPREAD
    """Standard deviation of the logarithm of the scales of B's rows."""
    densities: tuple[float, ...] = DENSITIES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tasks < 2:
            raise NloraError(f"there must be at least 2 tasks to meet, not {self.tasks}")
        if not 1 <= self.rank <= self.size:
            raise NloraError(f"the rank must be from 1 to the size, not {self.rank}")
        if not 0 <= self.spread <= 10:  # beyond it scales are no numbers of 32 bits, nor is nan one
            raise NloraError(f"the spread must be from 0 to 10, not {self.spread:g}")
        if self.seed < 0:
            raise NloraError(f"the seed must be at least 0, not {self.seed}")


def closed_form(density: float, tasks: int) -> dict[str, float]:
    """The measures of `Occupancy.row` where supports are independent."""
    free = (1 - density) ** tasks
    before = (1 - density) ** (tasks - 1)
    return {
        "acr": density**2,
        "used": 1 - free,
        "twice": 1 - free - tasks * density * before,
        "newcomer": 1 - before,
        "interference": (tasks - 1) * density,
    }


class Occupancy:
    """Who uses each position of the matrix, and with what energy, at one density."""

    def __init__(self, entries: int, density: float) -> None:
        self.density = density
        self.users = np.zeros(entries, np.int32)
        self.energy = np.zeros(entries)
        self.tasks = 0
        self.newest: tuple[float, float] = (0.0, 0.0)

    def add(self, support: np.ndarray, values: np.ndarray) -> None:
        """Add a task, by the positions and values of its update."""
        own = np.square(values)
        earlier = self.users[support] > 0
        met, energy = float(earlier.sum()), float(self.energy[support].sum())
        self.newest = (met / len(support), energy / float(own.sum())) if len(support) else (0, 0)
        self.users[support] += 1
        self.energy[support] += own
        self.tasks += 1

    def row(self, kind: str) -> Row:
        """What the simulation measured so far, and the closed form."""
        users = self.users.astype(np.float64)
        pairs = self.tasks * (self.tasks - 1) / 2
        values = (
            float((users * (users - 1) / 2).mean() / pairs),
            float((users > 0).mean()),
            float((users > 1).mean()),
            *self.newest,
        )
        return {
            "kind": kind,
            "density": self.density,
            "tasks": self.tasks,
            **dict(zip(MEASURES, values, strict=True)),
            "closed_form": closed_form(self.density, self.tasks),
        }


def simulate(space: Space) -> Iterator[Row]:
    """Every kind of support at every density, and the input spaces, after 2, 3, 5, 10, … tasks."""
    yield from _independent(space)
    for kind in KINDS[1:]:
        yield from _low_rank(space, kind)
    yield from _input_space(space)


def checkpoints(tasks: int) -> list[int]:
    """2, 3, 5, 10, 20, 30, 50, … up to the number of tasks."""
    steps = [m * 10**k for k in range(6) for m in (1, 2, 3, 5)]
    return sorted({t for t in steps if 1 < t < tasks} | {tasks})


def _independent(space: Space) -> Iterator[Row]:
    rng = np.random.default_rng(space.seed)
    entries = space.size**2
    found = [Occupancy(entries, s) for s in space.densities]
    marks = set(checkpoints(space.tasks))
    for task in range(1, space.tasks + 1):
        draws = rng.random(entries, np.float32)
        for each in found:
            support = np.flatnonzero(draws < each.density)
            each.add(support, rng.standard_normal(len(support), np.float32))
        if task in marks:
            yield from (each.row(KINDS[0]) for each in found)


def _low_rank(space: Space, kind: str) -> Iterator[Row]:
    rng = np.random.default_rng(space.seed)
    size, rank = space.size, space.rank
    found = [Occupancy(size**2, s) for s in space.densities]
    kept = [max(1, round(s * size**2)) for s in space.densities]
    marks = set(checkpoints(space.tasks))
    scales = np.exp(space.spread * rng.standard_normal((size, 1), np.float32))
    for task in range(1, space.tasks + 1):
        if kind == "low-rank":
            scales = np.exp(space.spread * rng.standard_normal((size, 1), np.float32))
        B = scales * rng.standard_normal((size, rank), np.float32)
        delta = (B @ rng.standard_normal((rank, size), np.float32)).ravel()
        magnitude = np.abs(delta)
        limits = np.partition(magnitude, [size**2 - k for k in kept])
        for each, k in zip(found, kept, strict=True):
            support = np.flatnonzero(magnitude >= limits[size**2 - k])
            each.add(support, delta[support])
        if task in marks:
            yield from (each.row(kind) for each in found)


def _input_space(space: Space) -> Iterator[Row]:
    """How much of the newest task's input space earlier ones already span, by rank."""
    for rank in sorted({1, space.rank, 4 * space.rank}):
        rng = np.random.default_rng(space.seed)
        basis = np.zeros((0, space.size))
        marks = set(checkpoints(space.tasks))
        for task in range(1, space.tasks + 1):
            A = rng.standard_normal((rank, space.size))
            if task in marks:
                inside = np.linalg.norm(A @ basis.T) ** 2 / np.linalg.norm(A) ** 2
                closed = min(1.0, (task - 1) * rank / space.size)
                yield {
                    "kind": "input space",
                    "rank": rank,
                    "tasks": task,
                    "inside": float(inside),
                    "closed_form": {"inside": closed},
                }
            if len(basis) < space.size:
                outside = A - (A @ basis.T) @ basis
                fresh = np.linalg.qr(outside.T)[0].T[: space.size - len(basis)]
                basis = np.concatenate([basis, fresh])


def half_used(rows: Sequence[Row]) -> Iterator[Row]:
    """After how many tasks half of a new support is in use: closed form, and simulated."""
    for density in sorted({r["density"] for r in rows if "density" in r}, reverse=True):
        reached: Row = {"density": density}
        reached["closed form"] = 1 + math.log(0.5) / math.log(1 - density)
        for kind in KINDS:
            found = [r for r in rows if r["kind"] == kind and r["density"] == density]
            reached[kind] = next((r["tasks"] for r in found if r["newcomer"] >= 0.5), None)
        yield reached


def of_adapters(source: str) -> dict[str, Any]:
    """`densities`, `spread` and `rank` of a `Space`, as trained adapters show them.

    `source` is a model directory, or an adapter. Thresholds that no entry exceeds, or every one,
    are left out: such supports are never, or always, in use. Raises NloraError as `read_adapters`
    does, and where none is left.
    """
    adapters = read_adapters([source])
    thresholds = [Threshold.parse(text) for text in THRESHOLDS]
    densities, spreads, ranks = [], [], []
    for module in adapters[0].shapes:
        updates = [a.factors(module) for a in adapters]
        densities.append([float(c.density.mean()) for c in collisions(updates, thresholds)])
        for update in updates:
            rank = update.B.shape[1]
            # Of random rows of one scale, log ‖row‖ alone has a variance of about 1/(2r).
            spread = float(update.B.double().norm(dim=1).clamp(min=1e-30).log().var())
            spreads.append(max(0.0, spread - 1 / (2 * rank)))
            ranks.append(rank)
    found = tuple(float(x) for x in np.mean(densities, axis=0) if 0 < x < 1)
    if not found:
        raise NloraError(
            f"{source}: no entry exceeds any of {', '.join(THRESHOLDS)}, or every one does (an "
            "update that was not trained is 0 everywhere), so there are no supports to simulate"
        )
    return {
        "densities": found,
        "spread": math.sqrt(float(np.mean(spreads))),
        "rank": round(float(np.mean(ranks))),
    }


def draw(rows: Sequence[Row], space: Space, path: Path) -> None:
    """Simulation as markers, closed form as lines. Raises NloraError without matplotlib."""
    try:
        import matplotlib  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NloraError("matplotlib is missing: pip install 'nlora[figures]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot  # pyright: ignore[reportMissingImports]

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    panels = (
        ("newcomer", "share of the newest support already in use"),
        ("twice", "share of positions used by two tasks or more"),
        ("interference", "energy of the others on the newest support, per own"),
    )
    densities = sorted({r["density"] for r in rows if "density" in r}, reverse=True)
    colours = pyplot.get_cmap("viridis")(np.linspace(0, 0.85, max(len(densities), 3)))
    marks = dict(zip(KINDS, ("o", "x", "^"), strict=True))
    for axis, (measure, title) in zip(axes.flat, panels, strict=False):
        for colour, density in zip(colours, densities, strict=False):
            for kind in KINDS:
                found = [r for r in rows if r["kind"] == kind and r["density"] == density]
                tasks = [r["tasks"] for r in found]
                if kind == "independent":
                    line = [r["closed_form"][measure] for r in found]
                    axis.plot(tasks, line, color=colour, label=f"s = {density:.3g}")
                values = [r[measure] for r in found]
                axis.plot(tasks, values, marks[kind], color=colour, fillstyle="none", markersize=5)
        axis.set(title=title, xscale="log", xlabel="tasks")
    axes[1, 0].set(yscale="log")
    axes[1, 0].axhline(1, color="grey", linewidth=0.8)
    inputs = [r for r in rows if r["kind"] == "input space"]
    for colour, rank in zip(colours, sorted({r["rank"] for r in inputs}), strict=False):
        found = [r for r in inputs if r["rank"] == rank]
        tasks = [r["tasks"] for r in found]
        line = [r["closed_form"]["inside"] for r in found]
        axes[1, 1].plot(tasks, line, color=colour, label=f"rank {rank}")
        axes[1, 1].plot(tasks, [r["inside"] for r in found], "o", color=colour, fillstyle="none")
    axes[1, 1].set(title="share of the newest input space spanned before", xscale="log")
    axes[1, 1].set(xlabel="tasks")
    for axis in (axes[0, 0], axes[1, 1]):
        axis.legend(frameon=False)
    text = ", ".join(
        f"{marks[kind]} {kind}".replace("o ", "○ ").replace("^", "△") for kind in KINDS
    )
    title = f"one matrix of {space.size}², rank {space.rank}; lines: closed form; {text}"
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=80)
