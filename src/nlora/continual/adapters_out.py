"""Updates handed on as PEFT adapters: one of all, or one per task with the rule that chooses.

No model is loaded. The sum of updates is one adapter whose factors stand beside each other,
exactly: Σ sᵢ·Bᵢ·Aᵢ = [s₁·B₁ … sₙ·Bₙ]·[A₁; …; Aₙ]. Its rank is the sum of theirs, unless it is
recompressed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.adapters.peft_config import CONFIG
from nlora.adapters.peft_files import WEIGHTS, read_adapter
from nlora.continual.agreement import stored_plan
from nlora.continual.cards import base_name, many_adapters, one_adapter
from nlora.continual.offsets import TOLD, beside
from nlora.errors import NloraError, option
from nlora.merging.registry import consolidation
from nlora.progress import Progress, spoken
from nlora.store.atomic import check_outside, draft_text, indented, new_folder
from nlora.store.directory import ModelDirectory
from nlora.store.locks import held
from nlora.store.reading import read_json
from nlora.store.records import standing

if TYPE_CHECKING:
    from nlora.lowrank.factors import Factors
    from nlora.plan.resolve import Plan

REPORT, PROMPTS, ROUTER = "export.json", "prompts.json", "router.safetensors"


def _plain(plan: Plan) -> str:
    """What there is for a method of which no adapters can be written."""
    if plan.method.mergeable:
        return f"without {option('adapter')} a plain model is written"
    return "nor does the method make one plain model; its directory is used as it is"


def export_adapter(
    model_dir: Path, out: Path, rank: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Write one PEFT adapter that is equal to all updates, to the new folder `out`.

    With `rank` the best one of at most that rank, whose error is told. What was measured is
    returned, and in `export.json`. Raises NloraError where the answers are not those of one model,
    or its updates have no sum of low rank.
    """
    directory, plan = ModelDirectory(model_dir), stored_plan(ModelDirectory(model_dir))
    _check(plan, one=True)
    with held(out):
        _check_new(out, model_dir)
        with new_folder(out, out.with_name(f".{out.name}.partial")) as draft:
            report = _write(plan, directory, None, draft, rank)
            prompts = _prompts(plan)
            draft_text(draft / PROMPTS, indented(prompts))
            offsets = beside(directory.stages(), plan.stream)
            for name, value in offsets.items():
                draft_text(draft / name, indented(value))
            draft_text(draft / REPORT, indented(report))
            draft_text(draft / "README.md", one_adapter(plan, directory, report))
    spoken(progress).message(f"the adapter is in {out}: {_in_words(report)}")
    if offsets:
        spoken(progress).message(TOLD)
    return report


def export_adapters(
    model_dir: Path, out: Path, rank: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Write a PEFT adapter for each task, the model as it stood for it, to the new folder `out`.

    Where a router chooses by the input, `router.safetensors` has what it chooses by; README.md has
    the rule, and how the adapters are served. What was measured is returned, and in `export.json`.
    Raises NloraError where there is one model for all tasks, or updates are no LoRA adapters.
    """
    directory, plan = ModelDirectory(model_dir), stored_plan(ModelDirectory(model_dir))
    _check(plan, one=False)
    records = directory.stages()
    stages = {task["name"]: record for record in standing(records) for task in record.tasks}
    names = {task: re.sub(r"[^A-Za-z0-9._-]+", "-", task) for task in stages}
    others = {".", "..", REPORT, PROMPTS, ROUTER, "README.md"}
    if len(set(names.values()) - others) < len(names):
        names = {task: record.folder for task, record in stages.items()}
    with held(out):
        _check_new(out, model_dir)
        with new_folder(out, out.with_name(f".{out.name}.partial")) as draft:
            report = {
                names[task]: {"task": task, "stage": record.index}
                | _write(plan, directory, record.index, draft / names[task], rank)
                for task, record in stages.items()
            }
            draft_text(draft / PROMPTS, indented(_prompts(plan)))
            draft_text(draft / REPORT, indented(report))
            order = {record.index: names[task] for task, record in stages.items()}
            by = _write_router(plan, directory, draft, order)
            draft_text(draft / "README.md", many_adapters(plan, directory, report, by))
    count = "1 adapter is" if len(report) == 1 else f"{len(report)} adapters are"
    spoken(progress).message(f"{count} in {out}; README.md says how to use them")
    return report


def _check_new(out: Path, model_dir: Path) -> None:
    check_outside(out, model_dir)
    if out.exists() or out.is_symlink():
        raise NloraError(f"{out} is there already; choose a new folder")


def _check(plan: Plan, one: bool) -> None:
    """Raise NloraError unless the method has LoRA updates, and one model or one per task."""
    name = plan.config.method
    if plan.method.adapter != "lora":
        raise NloraError(
            f"{name} trains '{plan.method.adapter}', which is no LoRA adapter; {_plain(plan)}"
        )
    if one and not plan.method.mergeable:
        raise NloraError(
            f"{name} has a model for each task: {option('adapters', True)} writes one for each"
        )
    if not one and plan.method.mergeable:
        raise NloraError(
            f"{name} makes one model for all tasks: {option('adapter', True)} writes one adapter"
        )
    if not are_sums(plan):
        raise NloraError(
            f"updates that make one model as '{_rule(plan)}' are no sum of adapters; {_plain(plan)}"
        )


def are_sums(plan: Plan) -> bool:
    """Whether a model of the method after any stage is the base with a sum of LoRA adapters."""
    rule = consolidation(_rule(plan))
    return plan.method.adapter == "lora" and (rule.additive or rule.alone)


def _rule(plan: Plan) -> str:
    return getattr(plan.method.settings, "consolidation", "sum")


def _write(
    plan: Plan, directory: ModelDirectory, stage: int | None, folder: Path, rank: int | None
) -> dict[str, Any]:
    """Write the adapter of the model after a stage; its rank, and its error where compressed."""
    import torch
    from safetensors.torch import save_file

    from nlora.lowrank.factors import concatenate, recompress, svd

    paths = directory.update_paths(stage, directory.stages())
    if consolidation(_rule(plan)).alone:
        paths = paths[-1:]
    adapters = [read_adapter(path) for path in paths]
    scales = _scales(paths)
    tensors: dict[str, torch.Tensor] = {}
    whole: dict[str, Factors] = {}
    lost = size = 0.0
    for name in adapters[-1].shapes:
        pairs = [a.factors(name) for a in adapters]
        pairs = [p._replace(scaling=p.scaling * s) for p, s in zip(pairs, scales, strict=True)]
        exact = concatenate([p._replace(A=p.A.float(), B=p.B.float()) for p in pairs])
        whole[name] = exact
        if rank is not None:
            whole[name], error = recompress(exact, rank)
            total = float(svd(exact).S.square().sum())
            size, lost = size + total, lost + error * error * total
    largest = max(len(factors.A) for factors in whole.values())
    for name, (A, B, scaling) in whole.items():
        missing = largest - len(A)
        A, B = scaling * A, B  # of plain LoRA with α = r
        prefix = f"base_model.model.{name}.lora_"
        pad = torch.nn.functional.pad
        tensors[f"{prefix}A.weight"] = pad(A, (0, 0, 0, missing)).contiguous()
        tensors[f"{prefix}B.weight"] = pad(B, (0, missing)).contiguous()
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = _config(paths[-1], plan, largest)
    draft_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True))
    return {
        "rank": largest,
        "updates": len(paths),
        "error_per_cent": 100 * math.sqrt(lost / size) if size > 0 else 0.0,
    }


def _scales(paths: Sequence[Path]) -> list[float]:
    """What each update is multiplied by: scalars that were trained with the last one."""
    file = paths[-1] / "scales.safetensors"
    if not file.is_file():
        return [1.0] * len(paths)
    from safetensors.torch import load_file

    known = load_file(file)["scales"].tolist()
    return [*known, *[1.0] * (len(paths) - len(known))]


def _config(update: Path, plan: Plan, rank: int) -> dict[str, Any]:
    """PEFT's configuration of an update, for factors of this rank whose product is the change."""
    values = read_json(update / CONFIG)
    return values | {
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
        "base_model_name_or_path": base_name(plan),
        "revision": plan.base.pinned,
    }


def _prompts(plan: Plan) -> dict[str, str]:
    """Of each task the prompt, with {text} where its text goes."""
    import torch

    from nlora.backbones.load import load
    from nlora.data.prompts import Prompter

    tokenizer = load(plan.base, torch.float32, weights=False).tokenizer
    prompter = Prompter(plan.run.prompt, plan.run.chat, tokenizer)
    return {data.name: prompter.prompt(data.task, "{text}") for data in plan.stream}


def _write_router(
    plan: Plan, directory: ModelDirectory, folder: Path, names: Mapping[int, str]
) -> str | None:
    """Write what a router chooses by; what it looks at, or None where there is no router."""
    settings = plan.method.settings
    if getattr(settings, "routing", "none") != "input":
        return None
    from safetensors.torch import save_file

    from nlora.methods.parts.routing import Router
    from nlora.store.state import read_state

    last = directory.stages()[-1]
    state = read_state(directory.stage_path(last) / "state", plan.method.State)
    by: str = settings.route_by
    kept = state.by_prompt if by == "prompt" else state.by_text
    fitted = Router(kept, by, rule=settings.router).fitted()
    tensors = {"weights": fitted.weights.contiguous(), "offsets": fitted.offsets.contiguous()}
    chosen = json.dumps([names[stage] for stage in kept.stages])
    told = {"adapters": chosen, "by": by}
    if kept.layers is not None:
        told["layers"] = str(kept.layers)
    save_file(tensors, folder / ROUTER, metadata=told)
    return by


def _in_words(report: Mapping[str, Any]) -> str:
    many = f"rank {report['rank']}, of {report['updates']} updates"
    error = report["error_per_cent"]
    return f"{many}, with an error of {error:.2g} %" if error else f"{many}, exactly"
