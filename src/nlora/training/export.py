"""A trained model as a plain Transformers model, for any program."""

from pathlib import Path

from nlora.errors import NloraError, unknown
from nlora.store.atomic import draft_text, indented, new_folder
from nlora.store.directory import ModelDirectory
from nlora.training.config import plan
from nlora.training.finished import restored, tasks_of
from nlora.training.progress import Watcher
from nlora.training.run import heard, stored_config

DTYPES = ("float32", "bfloat16", "float16")

PROMPTS = "prompts.json"


def export(
    model_dir: Path, out: Path, dtype: str = "float32", watcher: Watcher | None = None
) -> None:
    """Write the model of `model_dir`, all updates in its weights, to the new folder `out`.

    `from_pretrained` reads it. Beside weights and tokenizer lies `prompts.json`: of each task the
    prompt, with {text} where its text goes. The updates are merged in fp32; a `dtype` of 16 bits
    rounds afterwards, which may lose small ones. Raises NloraError if the answers are not those of
    one model, and if `out` is there already.
    """
    import torch

    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    learned = tasks_of(model_dir)
    config = stored_config(ModelDirectory(model_dir))
    if not plan(config).method.mergeable:
        raise NloraError(
            f"{config.method} does not make one model that can be saved by itself: `nlora methods` "
            "tells which methods are mergeable"
        )
    if out.exists() or out.is_symlink():
        raise NloraError(f"{out} is there already; choose a new folder")
    watcher = heard(watcher)
    learner = restored(model_dir, learned, watcher, fp32=True)
    model = learner.carrier.merged().to(getattr(torch, dtype))
    prompter = learner.encoder.prompter
    prompts = {data.name: prompter.prompt(data.task, "{text}") for data in learned}
    with new_folder(out, out.with_name(f".{out.name}.partial")) as draft:
        model.save_pretrained(draft)
        learner.backbone.tokenizer.save_pretrained(draft)
        draft_text(draft / PROMPTS, indented(prompts))
    watcher.message(f"the model is in {out}")
