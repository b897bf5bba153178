"""The report in plain words: where adapters collide, how sparse they are, what to make of it."""

from typing import Any

Json = dict[str, Any]

SPARSE, DENSE = 0.4, 0.6
"""GSR below which an update is called sparse, and from which dense: independent normal entries have
0.80, the product of two normal vectors (rank 1) 0.64."""

ORTHOGONAL, ALIGNED = 0.05, 0.3
"""|cosine| below which updates are called orthogonal, and from which aligned or opposed."""

UNLIKE = 3.0
"""Ratio of ‖ΔW‖_F from which absolute numbers of two adapters are not to be compared."""

SEEKING = 1.2
"""Lift from which supports are said to seek the same places."""

ONLY_TESTS = (
    "Geometry is no accuracy: how much a task loses shows only when the model is tested on it."
)


def explain(report: Json) -> list[str]:
    """Some paragraphs for a reader who does not know the measures."""
    adapters = report["per_adapter"]
    empty = [a["name"] for a in adapters if a["frobenius"]["mean"] == 0]
    said = [f"{name} is 0 everywhere: it was not trained." for name in empty]
    if len(empty) < len(adapters):
        said.append(_sparsity([a for a in adapters if a["name"] not in empty]))
    pairs = [p for p in report["pairs"] if p["a"] not in empty and p["b"] not in empty]
    if pairs:
        sizes = {a["name"]: a["frobenius"]["mean"] for a in adapters}
        said += [_sizes(sizes, empty), _directions(pairs), _collisions(report, sizes)]
        said.append(_states(report) if report["continues"] else _keeping(report, pairs))
    said += [f"{name}: {'; '.join(notes)}." for name, notes in report["notes"].items()]
    return [text for text in said if text]


def _sparsity(adapters: list[Json]) -> str:
    groups: dict[str, list[str]] = {}
    for adapter in adapters:
        gsr = adapter["gsr"]["mean"]
        word = "sparse" if gsr < SPARSE else "dense" if gsr >= DENSE else "neither sparse nor dense"
        groups.setdefault(word, []).append(
            f"{adapter['name']} (GSR {gsr:.2f}, {_percent(adapter['density']['mean'])} of its "
            f"entries, about {adapter['effective_rank']['mean']:.1f} directions a matrix)"
        )
    parts = [f"{word}: {_several(names)}" for word, names in groups.items()]
    return f"Sparsity: {'; '.join(parts)}."


def _sizes(sizes: dict[str, float], empty: list[str]) -> str:
    ordered = sorted((v, k) for k, v in sizes.items() if k not in empty)
    (low, small), (high, large) = ordered[0], ordered[-1]
    if high < UNLIKE * low:
        return ""
    return (
        f"Sizes: ‖ΔW‖_F of {large} is {high / low:.1f} times that of {small}. OO, AWOM, nuclear "
        "norm, ‖ΔW‖₁ and collisions at an absolute threshold are small for a small update whatever "
        "its shape: compare these two by cosine, GSR and relative thresholds only."
    )


def _directions(pairs: list[Json]) -> str:
    groups: dict[str, list[str]] = {}
    for pair in sorted(pairs, key=lambda p: -abs(p["cosine"]["mean"])):
        cosine = pair["cosine"]["mean"]
        if abs(cosine) < ORTHOGONAL:
            word = "orthogonal"
        elif abs(cosine) < ALIGNED:
            word = "nearly orthogonal"
        else:
            word = "aligned" if cosine > 0 else "opposed"
        groups.setdefault(word, []).append(
            f"{_pair(pair)} (cosine {cosine:+.3f}, input spaces overlap "
            f"{pair['input_overlap']['mean']:.2f} of 1)"
        )
    parts = [f"{word}: {_several(names)}" for word, names in groups.items()]
    return f"Directions: {'; '.join(parts)}."


def _collisions(report: Json, sizes: dict[str, float]) -> str:
    at = report["collisions"][0]
    worst = max(at["pairs"], key=lambda p: p["collision_rate"]["mean"])
    rate = worst["collision_rate"]["mean"]
    if rate == 0:
        return f"Collisions: none at threshold {at['threshold']}."
    norms = ", ".join(f"{sizes[worst[side]]:.3g}" for side in "ab")
    text = (
        f"Collisions (threshold {at['threshold']}): {_pair(worst)} meet most, at {_percent(rate)} "
        f"of all positions (‖ΔW‖_F {norms}); by chance it would be "
        f"{_percent(worst['expected']['mean'])}, and at {_percent(worst['opposing'])} of these "
        "positions they pull in opposite directions (chance: 50 %)."
    )
    kinds = {k: s["acr"] for k, s in report["kinds"].items()}
    most = max(kinds, key=lambda k: kinds[k])
    if len(kinds) > 1:
        text += f" Most in {most}: {_percent(kinds[most])} on average."
    place = report["most_colliding"][0]
    return text + f" The matrix with most is {place['matrix']}: {_percent(place['acr'])}."


def _keeping(report: Json, pairs: list[Json]) -> str:
    at = report["collisions"][0]
    opposed = [p for p in pairs if p["cosine"]["mean"] <= -ORTHOGONAL]
    shared = [p for p in pairs if p["cosine"]["mean"] >= ALIGNED]
    seeking = [p for p in at["pairs"] if p["lift"] is not None and p["lift"] >= SEEKING]
    parts = []
    if opposed:
        names = _several([_pair(p) for p in opposed])
        parts.append(f"{names} partly cancel each other in a sum")
    if shared:
        names = _several([_pair(p) for p in shared])
        parts.append(f"{names} change the weights alike, and a sum counts the common part twice")
    if seeking:
        names = _several([_pair(p) for p in seeking])
        parts.append(f"{names} meet more often than by chance: they want the same weights")
    if not parts:
        parts.append(
            "in a sum no update cancels or doubles another"
            + ("" if at["acr"] < 0.5 else ", but they share most of the weights that they change")
        )
    return f"Keeping all of them in one model: {'; '.join(parts)}. {ONLY_TESTS}"


def _states(report: Json) -> str:
    chain = _several([f"{name} continues {other}" for name, other in report["continues"].items()])
    return (
        f"States of one adapter: {chain}. The ΔW of each holds the change of the one before it "
        "too, so these pairs compare states, not tasks, and the last stands for all: nothing is "
        f"added up. {ONLY_TESTS}"
    )


def _pair(pair: Json) -> str:
    return f"{pair['a']} and {pair['b']}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _several(items: list[str], most: int = 4) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
