"""A trained model as a plain Transformers model, for any program."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.continual.agreement import stored_plan
from nlora.continual.learning import spoken
from nlora.errors import NloraError, unknown
from nlora.plan.resolve import Plan
from nlora.progress import Progress
from nlora.store.atomic import check_place, draft_text, indented, new_folder
from nlora.store.directory import ModelDirectory
from nlora.store.locks import held

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel

DTYPES = ("float32", "bfloat16", "float16")

PROMPTS = "prompts.json"

Describe = Callable[["ContinualModel"], Mapping[str, Any]]
"""JSON values of a model, by the names of their files."""


def export(
    model_dir: Path,
    out: Path,
    dtype: str = "float32",
    progress: Progress | None = None,
    describe: Describe | None = None,
) -> None:
    """Write the model of `model_dir`, all updates in its weights, to the new folder `out`.

    `from_pretrained` reads it. Beside weights and tokenizer lies `prompts.json`: of each task the
    prompt, with {text} where its text goes. The updates are merged in fp32; a `dtype` of 16 bits
    rounds afterwards, which may lose small ones. `describe` says what else lies beside them, by the
    file's name. Raises NloraError if the answers are not those of
    one model, and if `out` is there already.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    directory = ModelDirectory(model_dir)
    plan = stored_plan(directory)
    if not plan.method.mergeable:
        raise NloraError(
            f"{plan.config.method} does not make one model that can be saved by itself: `nlora "
            "methods` tells which methods are mergeable"
        )
    with held(out):
        if out.exists() or out.is_symlink():
            raise NloraError(f"{out} is there already; choose a new folder")
        _write(plan, directory, out, dtype, spoken(progress), describe)


def _write(
    plan: Plan,
    directory: ModelDirectory,
    out: Path,
    dtype: str,
    progress: Progress,
    describe: Describe | None,
) -> None:
    import torch  # slow, and not for what is refused

    from nlora.backbones.load import load
    from nlora.continual.model import ContinualModel

    shell = load(plan.base, getattr(torch, dtype), weights=False).model
    check_place(out, sum(p.numel() * p.element_size() for p in shell.parameters()))
    if plan.run.quantization != "none":
        progress.message(
            f"the updates were trained on {plan.run.quantization} weights and are merged into the "
            "plain ones, so some answers may differ"
        )
    model = ContinualModel.begin(plan, directory, progress, fp32=True)
    beside = describe(model) if describe else {}
    plain = model.adapter.merged().to(getattr(torch, dtype))
    prompter = model.encoder.prompter
    prompts = {data.name: prompter.prompt(data.task, "{text}") for data in model.stream}
    with new_folder(out, out.with_name(f".{out.name}.partial")) as draft:
        plain.save_pretrained(draft)
        model.backbone.tokenizer.save_pretrained(draft)
        for name, value in {PROMPTS: prompts, **beside}.items():
            draft_text(draft / name, indented(value))
    progress.message(f"the model is in {out}")
