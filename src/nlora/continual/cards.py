"""README.md of what is exported: model cards as Hugging Face reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.adapters.peft_config import CONFIG
from nlora.backbones.catalog import BUILT_IN
from nlora.continual.history import history
from nlora.store.directory import ModelDirectory
from nlora.store.reading import read_json

if TYPE_CHECKING:
    from nlora.plan.resolve import Plan


def base_name(plan: Plan) -> str:
    """What the base model is called elsewhere: a folder by its own name alone."""
    if os.path.isabs(plan.config.model):
        return plan.base.title
    return plan.base.target if plan.base.pinned else plan.config.model


def _place(plan: Plan) -> str:
    """What other programs load the base model by: its name on the Hub, or a folder."""
    return f"FOLDER-OF-{base_name(plan)}" if _in_folder(plan) else base_name(plan)


def _in_folder(plan: Plan) -> bool:
    return plan.config.model in BUILT_IN or os.path.isabs(plan.config.model)


def _found(plan: Plan) -> list[str]:
    """How the folder is found that stands for the base model, where it is in one."""
    if not _in_folder(plan):
        return []
    name = plan.config.model
    where = (
        f"`nlora models fetch {name}` says where it is, and fetches it if need be"
        if name in BUILT_IN
        else f"the hash of its weights, `config.json` and tokenizer is {plan.base.revision}"
    )
    return [f"`{_place(plan)}` stands for the folder of the base model: {where}."]


def card(plan: Plan, directory: ModelDirectory, library: str, title: str, parts: list[str]) -> str:
    """A model card: what it was trained on and how it did, then these parts."""
    from huggingface_hub import ModelCard, ModelCardData

    public = None if os.path.isabs(plan.config.model) else base_name(plan)
    data = ModelCardData(
        base_model=public if public and "/" in public else None,
        library_name=library,
        tags=["continual-learning", "lora", "nlora"],
    )
    found = history(directory)
    told = [f"# {title}", f"{found['base']}, trained by nlora ({found['method']}) task by task."]
    lines = [f"---\n{data.to_yaml()}\n---", *told, *parts, "## Tasks", _table(found)]
    return str(ModelCard("\n\n".join(lines) + "\n"))


def _table(found: Mapping[str, Any]) -> str:
    """Of every task its data, accuracy then and now, and what was forgotten."""
    rows = [
        "| task | learned (UTC) | training rows | tests | then (%) | now (%) | forgotten |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for stage in found["stages"]:
        for task in stage["tasks"]:
            used = task["rows"] or {"train": [None], "test": [None]}
            counts = [used["train"][0], used["test"][0]]
            numbers = [task["then"], task["now"], task["forgotten"]]
            shown = [_cell(value) for value in (*counts, *numbers)]
            name = str(task["name"]).replace("|", "/")
            state = "" if stage["state"] == "in force" else f" ({stage['state']})"
            rows.append(f"| {name}{state} | {stage['when'][:10]} | {' | '.join(shown)} |")
    return "\n".join(rows) + (
        "\n\nEach row is about its own tests. Then: right after the task was learned. "
        "Forgotten: the best since then minus now."
    )


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def one_adapter(plan: Plan, directory: ModelDirectory, report: Mapping[str, Any]) -> str:
    """The card of one adapter that stands for all updates."""
    rank, error = report["rank"], report["error_per_cent"]
    how = f"recompressed, with an error of {error:.3g} % (Frobenius norm)" if error else "exactly"
    said = f"One LoRA adapter of rank {rank} for the sum of {report['updates']} updates, {how}."
    pin = f', revision="{plan.base.pinned}"' if plan.base.pinned else ""
    shown = ONE.format(base=_place(plan), pin=pin, kind=_kind(directory.update_paths()))
    parts = [said, shown, *_found(plan)]
    return card(plan, directory, "peft", f"An adapter for {base_name(plan)}", parts)


def _kind(updates: Sequence[Path]) -> str:
    """What Transformers' class for the base model is called, after `AutoModelFor`."""
    told = read_json(updates[-1] / CONFIG)
    return "Seq2SeqLM" if told.get("task_type") == "SEQ_2_SEQ_LM" else "CausalLM"


def plain_model(plan: Plan, directory: ModelDirectory, report: Mapping[str, Any]) -> str:
    """The card of a plain model with all updates in its weights."""
    held = report["held_out"]
    said = (
        f"All updates are in the weights, which are {report['dtype']} (published: "
        f"{report['base']['dtype']}). Rounding lost {report['lost_per_cent']:.2g} % of them; of "
        f"{held['inputs']} held-out inputs {held['same']} have the same most likely next token as "
        f"with the trained model (mean KL {held['divergence']:.2g})."
    )
    parts = [said, *report["notes"].values(), PROMPTS]
    return card(plan, directory, "transformers", f"{base_name(plan)} with its updates", parts)


PROMPTS = "`prompts.json` has the prompt of each task, with `{text}` where its text goes."
ONE = """`prompts.json` has the prompt of each task, with `{{text}}` where its text goes.

```python
from peft import PeftModel
from transformers import AutoModelFor{kind}

base = AutoModelFor{kind}.from_pretrained("{base}"{pin})
model = PeftModel.from_pretrained(base, "THIS FOLDER")
```"""


def many_adapters(
    plan: Plan, directory: ModelDirectory, report: Mapping[str, Any], by: str | None
) -> str:
    """The card of an adapter per task, with the rule that chooses and how to serve them."""
    rank = max(one["rank"] for one in report.values())
    lines = ["Each folder is a LoRA adapter: the model as it stood for one task.", ""]
    lines += ["| folder | task | rank | error (%) |", "| --- | --- | ---: | ---: |"]
    for folder, one in report.items():
        lines.append(
            f"| `{folder}` | {one['task']} | {one['rank']} | {one['error_per_cent']:.2g} |"
        )
    modules = " ".join(f"{folder}={Path(folder)}" for folder in report)
    limit = next((r for r in (8, 16, 32, 64, 128, 256, 320, 512) if r >= rank), rank)
    parts = ["\n".join(lines), RULES[by].format(ROUTER="router.safetensors")]
    first = next(iter(report))
    kind = _kind(directory.update_paths(report[first]["stage"]))  # the last stage may have none
    served = SERVE if kind == "CausalLM" else SERVE_ENCODER_DECODER
    pin = f" --revision {plan.base.pinned}" if plan.base.pinned else ""
    parts.append(
        served.format(base=_place(plan), pin=pin, rank=limit, modules=modules, first=first)
    )
    parts += _found(plan)
    return card(plan, directory, "peft", f"Adapters for {base_name(plan)}", parts)


_CHOICE = """## Which adapter

`{ROUTER}` has `weights` (d, T) and `offsets` (T,) in float64, and in its metadata the `adapters` in
their order. For {what} let e be the mean over its tokens of the *base* model's last hidden states
(the encoder's, where there is one), without any adapter, in float64. Where the metadata has
`layers`, the model is one that has so many of its layers alone, before its final norm, as
`from_pretrained(..., num_hidden_layers=LAYERS)` loads it. The adapter is the one with the largest
entry of `e @ weights - offsets`."""
RULES: dict[str | None, str] = {
    None: "## Which adapter\n\nYou say which task a text belongs to.",
    "text": _CHOICE.replace("{what}", "a bare text, without its prompt,"),
    "prompt": _CHOICE.replace("{what}", "a whole prompt (`prompts.json`)"),
}
SERVE_ENCODER_DECODER = """`prompts.json` has the prompt of each task, with `{{text}}` where its
text goes.

## Serving

vLLM serves no adapters of an encoder-decoder model like this one. Plain PEFT reads them over the
base model (`PeftModel.from_pretrained`, with that of `{base}`), and `nlora serve` answers with the
model directory itself."""
SERVE = """`prompts.json` has the prompt of each task, with `{{text}}` where its text goes.

## Serving

vLLM:

```console
$ vllm serve {base}{pin} --enable-lora --max-lora-rank {rank} --lora-modules {modules}
```

A request then names its adapter (`"model": "{first}"`). SGLang takes the same folders with
`--lora-paths`. llama.cpp needs each as GGUF (`convert_lora_to_gguf.py`), given with `--lora` and
chosen by the `lora` field of a request."""
