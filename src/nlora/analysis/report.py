"""What `nlora analyze` knows of some adapters, as one JSON object.

Every number is taken per matrix and then aggregated over matrices: `sum`, as published, and `mean`,
unweighted. Rates have a mean only. All are of ΔW with its scaling, `oo` of A alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from nlora.lowrank.factors import Factors
from nlora.lowrank.metrics import entry_norm, entry_overlap, geometry, gsr_of_norms
from nlora.lowrank.supports import Threshold, average_over_pairs, collisions

_BY_FACTORS = (
    "oo",
    "awom_input_fro",
    "awom_input_spectral",
    "awom_output_fro",
    "awom_output_spectral",
    "inner_product",
    "cosine",
)
PAIR_SUMS = (*_BY_FACTORS, "entry_overlap")
PAIR_RATES = ("input_overlap", "output_overlap")
ADAPTER_SUMS = ("gsr", "nuclear_norm", "effective_rank", "l1", "frobenius", "spectral_norm")
SHOWN_MATRICES = 5

Json = dict[str, Any]


class Update(Protocol):
    """What is needed of an adapter."""

    name: str
    shapes: dict[str, tuple[int, int]]
    notes: list[str]
    continues: str | None

    def factors(self, module: str) -> Factors:
        """The update of one module."""
        ...


class Totals:
    """Sums of the measures over matrices."""

    def __init__(self) -> None:
        self.matrices = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add the measures of one more matrix."""
        self.matrices += 1
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def mean(self, name: str) -> Tensor:
        """The mean of a measure over matrices, unweighted."""
        return self.sums[name] / self.matrices


def measure(updates: Sequence[Factors], thresholds: Sequence[Threshold]) -> dict[str, Tensor]:
    """All measures of T updates of one matrix: (T,), (T, T), or with a first axis of thresholds."""
    found = geometry(updates)
    l1 = [entry_norm(u) for u in updates]
    size = updates[0].B.shape[0] * updates[0].A.shape[1]
    norms = zip(l1, found.frobenius.tolist(), strict=True)
    met = collisions(updates, thresholds)
    return {
        **{name: getattr(found, name).cpu() for name in _BY_FACTORS + PAIR_RATES},
        "entry_overlap": entry_overlap(updates),
        "nuclear_norm": found.nuclear_norm.cpu(),
        "effective_rank": found.effective_rank.cpu(),
        "frobenius": found.frobenius.cpu(),
        "spectral_norm": torch.stack([spectrum[0] for spectrum in found.spectra]).cpu(),
        "l1": torch.tensor(l1, dtype=torch.float64),
        "gsr": torch.tensor([gsr_of_norms(a, b, size) for a, b in norms], dtype=torch.float64),
        "collision_rate": torch.stack([c.rate for c in met]),
        "expected": torch.stack([c.expected for c in met]),
        "opposing": torch.stack([c.opposing / c.size for c in met]),
        "density": torch.stack([c.density for c in met]),
        "used_by_at_least": torch.stack([c.used_by_at_least for c in met]),
    }


def analyse(
    adapters: Sequence[Update],
    thresholds: Sequence[Threshold],
    every_matrix: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Json:
    """The report on adapters that update the same matrices; `advance` is called after each.

    `every_matrix` adds the numbers of every matrix. The first threshold is the one of the main
    keys. Raises NloraError for factors that are damaged.
    """
    names = [a.name for a in adapters]
    modules = list(adapters[0].shapes)
    kinds = layer_kinds(modules)
    total, by_kind = Totals(), {kind: Totals() for kind in dict.fromkeys(kinds.values())}
    by_matrix: dict[str, Json] = {}
    places = []
    for module in modules:
        values = measure([a.factors(module) for a in adapters], thresholds)
        total.add(values)
        by_kind[kinds[module]].add(values)
        if len(adapters) > 1:
            places.append(_place(names, module, values["collision_rate"][0]))
        if every_matrix:
            alone = Totals()
            alone.add(values)
            shape = adapters[0].shapes[module]
            by_matrix[module] = {"kind": kinds[module], "shape": shape, **_section(names, alone)}
        advance()
    places.sort(key=lambda p: -p["acr"])
    report = {
        "adapters": names,
        "threshold": str(thresholds[0]),
        **_section(names, total),
        "last": _last(names, total),
        "collisions": [_at(names, total, i, str(t)) for i, t in enumerate(thresholds)],
        "kinds": {kind: _section(names, totals) for kind, totals in by_kind.items()},
        "most_colliding": places[:SHOWN_MATRICES],
        "notes": {a.name: a.notes for a in adapters if a.notes},
        "continues": {a.name: a.continues for a in adapters if a.continues},
    }
    return {**report, "by_matrix": by_matrix} if every_matrix else report


def layer_kinds(modules: Sequence[str]) -> dict[str, str]:
    """The kind of each module: its name without numbers and without what all names begin with.

    >>> list(layer_kinds(["m.layers.0.attn.q_proj", "m.layers.1.attn.v_proj"]).values())
    ['q_proj', 'v_proj']
    """
    parts = {m: [p for p in m.split(".") if not p.isdigit()] for m in modules}
    common = 0
    for steps in zip(*(p[:-1] for p in parts.values()), strict=False):
        if len(set(steps)) > 1:
            break
        common += 1
    return {m: ".".join(p[common:]) for m, p in parts.items()}


def _section(names: list[str], totals: Totals) -> Json:
    """The keys that a report has for all matrices, and for each part of them."""
    rate = totals.mean("collision_rate")[0]
    tables = {
        **{k: _listed(totals, k, rate=False) for k in PAIR_SUMS + ADAPTER_SUMS},
        **{k: _listed(totals, k, rate=True) for k in PAIR_RATES},
    }
    rates, density = rate.tolist(), totals.mean("density")[0].tolist()
    pairs = [
        {
            "a": names[i],
            "b": names[j],
            **{k: tables[k](i, j) for k in PAIR_SUMS + PAIR_RATES},
            "collision_rate": {"mean": rates[i][j]},
        }
        for i, j in _pairs(names)
    ]
    per_adapter = [
        {
            "name": name,
            **{k: tables[k](i) for k in ADAPTER_SUMS},
            "density": {"mean": density[i]},
        }
        for i, name in enumerate(names)
    ]
    acr = average_over_pairs(rate) if len(names) > 1 else None
    return {"matrices": totals.matrices, "acr": acr, "pairs": pairs, "per_adapter": per_adapter}


def _listed(totals: Totals, name: str, rate: bool) -> Callable[..., Json]:
    """A table's cells as {"sum": …, "mean": …}; plain lists, since tensors are slow to index."""
    sums, means = totals.sums[name].tolist(), totals.mean(name).tolist()

    def cell(*where: int) -> Json:
        total, mean = sums, means
        for index in where:
            total, mean = total[index], mean[index]
        return {"mean": mean} if rate else {"sum": total, "mean": mean}

    return cell


def _last(names: list[str], totals: Totals) -> Json | None:
    """Eqs. 7 and 8 as Table 3 has them: the last adapter against all before it, summed."""
    if len(names) < 2:
        return None
    found: Json = {"adapter": names[-1]}
    for name in PAIR_SUMS[:5]:
        value = float(totals.sums[name][:-1, -1].sum())
        found[name] = {"sum": value, "mean": value / totals.matrices}
    return found


def _at(names: list[str], totals: Totals, index: int, threshold: str) -> Json:
    """Everything about supports at one threshold."""
    keys = ("collision_rate", "expected", "opposing")
    rate, expected, opposing = (totals.mean(key)[index].tolist() for key in keys)
    return {
        "threshold": threshold,
        "acr": average_over_pairs(totals.mean("collision_rate")[index]) if len(names) > 1 else None,
        "density": totals.mean("density")[index].tolist(),
        "used_by_at_least": totals.mean("used_by_at_least")[index].tolist(),
        "pairs": [
            {
                "a": names[i],
                "b": names[j],
                "collision_rate": {"mean": rate[i][j]},
                "expected": {"mean": expected[i][j]},
                "lift": rate[i][j] / expected[i][j] if expected[i][j] else None,
                "opposing": opposing[i][j] / rate[i][j] if rate[i][j] else None,
            }
            for i, j in _pairs(names)
        ],
    }


def _place(names: list[str], module: str, rate: Tensor) -> Json:
    """How much the adapters collide in one matrix, and which two most."""
    above = rate.triu(1)
    i, j = divmod(int(above.argmax()), len(names))
    if i == j:  # no collision at all
        i, j = 0, 1
    worst = {"a": names[i], "b": names[j], "collision_rate": float(rate[i, j])}
    return {"matrix": module, "acr": average_over_pairs(rate), **worst}


def _pairs(names: list[str]) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
