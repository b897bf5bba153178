"""`nlora analyze`: the geometry of adapters written by anyone."""

from typing import Annotated, Any

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, show, watcher

SHOWN_PAIRS = 20


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
    from nlora.analysis.report import analyse
    from nlora.lowrank.supports import Threshold

    parsed = [Threshold.parse(text) for text in thresholds or ["0.1rms"]]
    adapters = read_adapters(sources, same_base)
    watch = watcher()
    watch.start("analysis", len(adapters[0].shapes))
    try:
        report = analyse(adapters, parsed, matrices, watch.advance)
    finally:
        watch.finish()
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
            _pairs(report, at)
    _parts("kind", report["kinds"])
    if "by_matrix" in report:
        _parts("matrix", report["by_matrix"])
    for paragraph in explain(report):
        out.print(paragraph, markup=False, highlight=False)


def _adapter(a: dict[str, Any]) -> list[Any]:
    measures = [a[key]["mean"] for key in ("frobenius", "l1", "gsr")]
    density = 100 * a["density"]["mean"]
    return [a["name"], *measures, density, a["effective_rank"]["mean"], a["nuclear_norm"]["mean"]]


def _pairs(report: dict[str, Any], at: dict[str, Any]) -> None:
    """The pairs that collide most, with both sizes beside."""
    norms = {a["name"]: a["frobenius"]["mean"] for a in report["per_adapter"]}
    rows = []
    for pair, met in zip(report["pairs"], at["pairs"], strict=True):
        rate, opposing = met["collision_rate"]["mean"], met["opposing"]
        rows.append(
            [
                *(pair["a"], pair["b"], norms[pair["a"]], norms[pair["b"]]),
                *(100 * rate, 100 * met["expected"]["mean"], met["lift"]),
                None if opposing is None else 100 * opposing,
                *(pair[key]["mean"] for key in ("cosine", "oo", "awom_input_fro")),
                pair["awom_output_fro"]["mean"],
            ]
        )
    rows.sort(key=lambda row: -row[4])
    columns = ["", "", "‖ΔW‖_F", "‖ΔW‖_F", "collide (%)", "by chance", "lift", "opposing (%)"]
    columns += ["cosine", "OO", "AWOM in", "AWOM out"]
    first = (
        f", the {SHOWN_PAIRS} of {len(rows)} that collide most" if len(rows) > SHOWN_PAIRS else ""
    )
    title = f"pairs{first}; threshold {at['threshold']}, ACR {100 * at['acr']:.3g} %"
    show(title, columns, rows[:SHOWN_PAIRS], ".3g")


def _parts(what: str, parts: dict[str, Any]) -> None:
    """Layer kinds or matrices, each as the mean over adapters and over pairs."""
    rows = []
    for name, part in parts.items():
        sizes = [_mean(part["per_adapter"], key) for key in ("frobenius", "gsr", "effective_rank")]
        acr = None if part["acr"] is None else 100 * part["acr"]
        overlaps = [_mean(part["pairs"], key) for key in ("cosine", "oo", "awom_input_fro")]
        rows.append([name, part["matrices"], *sizes, acr, *overlaps])
    columns = [what, "matrices", "‖ΔW‖_F", "GSR", "effective rank", "ACR (%)"]
    show("", [*columns, "cosine", "OO", "AWOM in"], rows, ".3g")


def _mean(rows: list[dict[str, Any]], key: str) -> float | None:
    return sum(row[key]["mean"] for row in rows) / len(rows) if rows else None
