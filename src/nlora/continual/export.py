"""A trained model, or an adapter on its base, as a plain Transformers model, for any program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.adapters.given import given
from nlora.adapters.peft_config import CONFIG
from nlora.backbones.catalog import Base, find
from nlora.continual.agreement import stored_plan
from nlora.errors import NloraError, option, unknown
from nlora.progress import Progress, spoken
from nlora.store.atomic import check_outside, check_place, draft_text, indented, new_folder
from nlora.store.directory import ModelDirectory
from nlora.store.locks import held
from nlora.store.records import Offsets

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.continual.merged import Merged

DTYPES = ("float32", "bfloat16", "float16")

PROMPTS = "prompts.json"
REPORT = "export.json"
MOST_LOST = 1.0
"""Per cent of the updates that may be lost by rounding, by default."""

Match = Callable[[Any], Mapping[str, Offsets]]
"""Offsets of a `ContinualModel`, by task."""


def export(
    source: Path,
    out: Path,
    dtype: str | None = None,
    progress: Progress | None = None,
    model: str | None = None,
    most_lost: float = MOST_LOST,
    match: Match | None = None,
    consolidation: str | None = None,
) -> dict[str, Any]:
    """Write the model of a directory, or the base `model` with a PEFT adapter, to the folder `out`.

    `from_pretrained` reads it. `dtype` is by default the one that the base is published in. Updates
    are merged in fp32 and rounded once; how much of them is lost by that is measured, and more than
    `most_lost` per cent is refused. What was measured is returned, and in `export.json`;
    `prompts.json` has each task's prompt, with {text} where its text goes. `match` finds offsets
    of tasks that lie beside a directory's model instead of those in force, and `consolidation` says
    how its updates make one model, if not as they were trained. Raises NloraError also if the
    answers are not those of one model, and if `out` is there already.
    """
    if dtype is not None and dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    progress = spoken(progress)
    if (source / CONFIG).is_file():
        if consolidation is not None:
            raise NloraError(
                f"{option('consolidation')} is for a model directory; an adapter is one update"
            )
        if match is not None:
            raise NloraError(
                f"{option('answers')} is for a model directory; an adapter knows no tasks"
            )
        base, merge = _adapter(source, model)
        instead = ", and so does the adapter itself"
    elif model is not None:
        raise NloraError(
            f"{option('model')} is for an adapter; a model directory knows its base model"
        )
    else:
        base, merge = _directory(source, progress, match, consolidation)
        instead = f", and so does {option('adapter', True)}, where updates are LoRA's"
    check_outside(out, source)
    with held(out):
        if out.exists() or out.is_symlink():
            raise NloraError(f"{out} is there already; choose a new folder")
        return _write(base, merge, out, dtype, most_lost, instead, progress)


def _directory(
    source: Path, progress: Progress, match: Match | None, consolidation: str | None
) -> tuple[Base, Callable[[], Merged]]:
    """The base of a directory's model, and what merges it."""
    directory = ModelDirectory(source)
    plan = stored_plan(directory, {"consolidation": consolidation} if consolidation else None)
    if not plan.method.mergeable:
        from nlora.continual.adapters_out import are_sums

        name, routing = plan.config.method, getattr(plan.method.settings, "routing", "none")
        if routing != "none" and are_sums(plan):
            raise NloraError(
                f"{name} answers each task with a model of its own (routing={routing}): "
                f"{option('adapters', True)} writes an adapter for each"
            )
        raise NloraError(
            f"{name} does not make one model that can be saved by itself (`nlora methods` tells "
            "which methods are mergeable); its directory is used as it is"
        )

    def merge() -> Merged:
        from nlora.continual.merged import of_directory

        return of_directory(plan, directory, progress, match)

    return plan.base, merge


def _adapter(source: Path, model: str | None) -> tuple[Base, Callable[[], Merged]]:
    """The base of a PEFT adapter, and what merges it."""
    found = given(str(source))
    named = model or found.base
    if named is None:
        raise NloraError(f"{source} does not say what its base model is; give {option('model')}")

    def merge() -> Merged:
        from nlora.continual.merged import of_adapter

        return of_adapter(base, found)

    base = find(named)
    return base, merge


def _write(
    base: Base,
    merge: Callable[[], Merged],
    out: Path,
    dtype: str | None,
    most_lost: float,
    instead: str,
    progress: Progress,
) -> dict[str, Any]:
    import torch  # slow, and not for what is refused

    from nlora.backbones.load import load, own_dtype
    from nlora.continual.survival import beyond, compared, logits, parameters, rounded, survival

    own = str(own_dtype(base)).removeprefix("torch.")
    name = dtype or (own if own in DTYPES else "float32")
    numbers: torch.dtype = getattr(torch, name)
    shell = load(base, numbers, weights=False).model
    check_place(out, sum(p.numel() * p.element_size() for p in shell.parameters()))
    merged = merge()
    found = survival(merged.base, parameters(merged.model), merged.change, numbers)
    if found.lost > most_lost:
        worst = max(found.matrices, key=found.matrices.__getitem__)
        raise NloraError(
            f"{found.lost:.3g} % of the updates would be lost in {name} (most in {worst}, "
            f"{found.matrices[worst]:.3g} %), whose numbers are too coarse for them beside the "
            f"weights: {option('dtype', 'float32')} keeps them{instead}; {option('max_lost')} "
            "allows it"
        )
    plain = rounded(merged.model, numbers)
    told = logits(plain, merged.inputs)
    _check_finite(name, beyond(plain), merged.logits, told)
    answered = compared(merged.logits, told)
    report = {
        "dtype": name,
        "base": {"title": base.title, "revision": base.revision, "dtype": own},
        "lost_per_cent": found.lost,
        "by_matrix": found.matrices,
        "held_out": asdict(answered),
        "notes": merged.notes,
    }
    with new_folder(out, out.with_name(f".{out.name}.partial")) as draft:
        plain.save_pretrained(draft)
        merged.tokenizer.save_pretrained(draft)
        draft_text(draft / REPORT, indented(report))
        for file, value in merged.beside.items():
            draft_text(draft / file, indented(value))
        if merged.prompts:
            draft_text(draft / PROMPTS, indented(merged.prompts))
        if merged.card is not None:
            draft_text(draft / "README.md", merged.card(report))
    progress.message(
        f"the model is in {out}, in {name}: {found.lost:.2g} % of the updates were lost; of "
        f"{answered.inputs} held-out inputs {answered.same} have the same most likely token"
    )
    return report


def _check_finite(
    name: str, weight: str | None, trained: Sequence[Tensor], written: Sequence[Tensor]
) -> None:
    """Raise NloraError where the numbers of a dtype are too small for a weight, or for answers."""
    lost = [
        not bool(there.isfinite().all())
        for here, there in zip(trained, written, strict=True)
        if bool(here.isfinite().all())
    ]
    if weight is not None:
        said = f"{weight} holds values beyond the largest number of {name}"
    elif any(lost):
        said = f"in {name} the model computes no numbers for {sum(lost)} of {len(lost)} inputs"
    else:
        return
    raise NloraError(f"{said}: {option('dtype', 'float32')} keeps them")
