"""`nlora analyze`: the geometry of adapters written by anyone."""

from typing import Annotated, Any

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, progress, show

SHOWN_PAIRS = 20

PUBLISHED = (("OO", "oo"), ("AWOM", "awom_input_fro"))
"""What Table 3 of the paper has (Eqs. 7 and 8)."""


def analyze(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER ADAPTER… | MODEL_DIR",
            help="Folders or Hub names of LoRA adapters (PEFT) of one model; or a model directory, "
            "for the update of each of its stages.",
        ),
    ],
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold",
            help="An entry counts as used above it: 0.1rms is relative to the root mean square of "
            "its matrix, a bare number absolute; repeat for a curve.  [default: 0.1rms]",
        ),
    ] = None,
    matrices: Annotated[
        bool, typer.Option("--matrices", help="Every matrix too, not only kinds of layers.")
    ] = False,
    same_base: Annotated[
        bool,
        typer.Option("--same-base", help="The base models are one, though named differently."),
    ] = False,
    json: o.Json = False,
) -> None:
    """Where adapters collide, how orthogonal and how sparse they are, and what that means.

    No base model is needed: only adapter_config.json and the safetensors file are read.
    """
    from nlora.analysis.adapters import read_adapters
    from nlora.progress import shown

    adapters = read_adapters(sources, same_base)
    from nlora.analysis.report import analyse  # slow, and not for a folder that is not there
    from nlora.lowrank.supports import Threshold

    parsed = [Threshold.parse(text) for text in thresholds or ["0.1rms"]]
    watch = progress()
    with shown(watch, "analysis", len(adapters[0].shapes)):
        report = analyse(adapters, parsed, matrices, watch.advance)
    if json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    from nlora.analysis.words import explain

    count = report["matrices"]
    show(
        f"adapters, means over {count} matrices; density: entries above {report['threshold']}",
        ["adapter", "‖ΔW‖_F", "‖ΔW‖₁", "GSR", "density (%)", "effective rank", "nuclear norm"],
        [_adapter(a) for a in report["per_adapter"]],
        ".3g",
    )
    if report["pairs"]:
        for at in report["collisions"]:
            _collisions(report, at)
        _overlaps(report)
    measures = ["‖ΔW‖_F", "GSR", "eff. rank", "ACR (%)", "cosine", "OO", "AWOM in"]
    show("", ["kind", "n", *measures], [[k, *_part(v)] for k, v in report["kinds"].items()], ".3g")
    if "by_matrix" in report:  # long names: the rest is in the JSON
        rows = [[name, *_part(part)[1:5]] for name, part in report["by_matrix"].items()]
        show("", ["matrix", *measures[:4]], rows, ".3g")
    for paragraph in explain(report):
        out.print(paragraph, markup=False, highlight=False, soft_wrap=False)


def _adapter(a: dict[str, Any]) -> list[Any]:
    measures = [a[key]["mean"] for key in ("frobenius", "l1", "gsr")]
    density = 100 * a["density"]["mean"]
    return [a["name"], *measures, density, a["effective_rank"]["mean"], a["nuclear_norm"]["mean"]]


def _collisions(report: dict[str, Any], at: dict[str, Any]) -> None:
    """The pairs that collide most."""
    pairs = sorted(at["pairs"], key=lambda p: -p["collision_rate"]["mean"])
    rows = [
        [
            *_pair(report, pair),
            100 * pair["collision_rate"]["mean"],
            100 * pair["expected"]["mean"],
            pair["lift"],
            None if pair["opposing"] is None else 100 * pair["opposing"],
        ]
        for pair in pairs[:SHOWN_PAIRS]
    ]
    show(
        f"collisions above {at['threshold']}: ACR {100 * at['acr']:.3g} %{_first(pairs)}",
        ["pair", "‖ΔW‖_F", "collide (%)", "chance (%)", "lift", "oppose (%)"],
        rows,
        ".3g",
    )


def _overlaps(report: dict[str, Any]) -> None:
    """The pairs that are least orthogonal."""
    pairs = sorted(report["pairs"], key=lambda p: -abs(p["cosine"]["mean"]))
    keys = ("cosine", "oo", "awom_input_fro", "awom_output_fro")
    show(
        f"directions{_first(pairs)}",
        ["pair", "‖ΔW‖_F", "cosine", "OO", "AWOM in", "AWOM out"],
        [[*_pair(report, p), *(p[key]["mean"] for key in keys)] for p in pairs[:SHOWN_PAIRS]],
        ".3g",
    )
    last = report["last"]
    sums = ", ".join(f"{name} {last[key]['sum']:.3g}" for name, key in PUBLISHED)
    out.print(
        f"{last['adapter']} against all before it, summed over matrices: {sums}.\n",
        markup=False,
        highlight=False,
        soft_wrap=False,
    )


def _pair(report: dict[str, Any], pair: dict[str, Any]) -> list[str]:
    """Both names, and the sizes without which no overlap can be read."""
    norms = {a["name"]: a["frobenius"]["mean"] for a in report["per_adapter"]}
    return [f"{pair['a']} × {pair['b']}", f"{norms[pair['a']]:.3g}, {norms[pair['b']]:.3g}"]


def _first(pairs: list[Any]) -> str:
    return f" (the first {SHOWN_PAIRS} of {len(pairs)} pairs)" if len(pairs) > SHOWN_PAIRS else ""


def _part(part: dict[str, Any]) -> list[Any]:
    """A kind of layers or a matrix: how many, then means over adapters and over pairs."""
    sizes = [_mean(part["per_adapter"], key) for key in ("frobenius", "gsr", "effective_rank")]
    acr = None if part["acr"] is None else 100 * part["acr"]
    cosine, *overlaps = (_mean(part["pairs"], k) for k in ("cosine", "oo", "awom_input_fro"))
    rounded = None if cosine is None else round(cosine, 4)
    return [part["matrices"], *sizes, acr, rounded, *overlaps]


def _mean(rows: list[dict[str, Any]], key: str) -> float | None:
    return sum(row[key]["mean"] for row in rows) / len(rows) if rows else None
