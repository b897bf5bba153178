"""What the weight ρ of a penalty does to an update and to the task, on `dev` and never on test.

    python benchmarks/penalty_strength.py --out runs/strength [--model smollm2-135m] \\
        [--penalties l1,frobenius,column-row] [--rho 0.01,0.1,1] [--set max_text_tokens=72]…

A cell is one penalty at one ρ (`l1_unit: relative`), a fresh adapter per task of the stream. Its
row goes to OUT/rows.jsonl: after each stage ‖ΔW‖_F of the new update over all matrices, the mean of
GSR = ‖ΔW‖₁/(√(mn)·‖ΔW‖_F) over the matrices that are not 0, the share of entries of ΔW that are
exactly 0, the λ that ρ came to, and the dev loss and accuracy of every task so far. The first cell
has no penalty. Finished cells are skipped and a stopped one goes on after its last stage, so this
can run in the background. `--model random-t5` is a small random T5, made in OUT: it shows what a
penalty does to ΔW, not what is learned.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from nlora.cli.console import Lines
from nlora.data.batches import Collator
from nlora.data.streams import load_stream
from nlora.data.task import Example, sample
from nlora.lowrank.factors import Factors
from nlora.models.backbone import load
from nlora.models.catalog import resolve
from nlora.store.directory import ModelDirectory
from nlora.training.config import Plan, RunConfig, parse_overrides, plan
from nlora.training.learner import make_carrier, make_encoder
from nlora.training.run import run

RHO = "0.01,0.03,0.05,0.1,0.2,0.5,1,3"


def random_t5(folder: Path) -> str:
    """A T5 of 4 + 4 layers that has learned nothing, over bytes."""
    if not folder.is_dir():
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        ids = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *letters])}
        raw = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token="<unk>"))
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        raw.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
        names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        config = T5Config(
            vocab_size=len(ids),
            d_model=256,
            d_kv=64,
            d_ff=512,
            num_heads=4,
            num_layers=4,
            decoder_start_token_id=0,
        )
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=raw, **names).save_pretrained(folder)
    return str(folder)


def geometry(folder: Path, scaling: float) -> dict[str, float]:
    """Size, density and exact zeros of a saved update."""
    tensors = load_file(folder / "adapter_model.safetensors")
    squares, densities, zeros, total = 0.0, [], 0, 0
    for name, A in tensors.items():
        if ".lora_A." in name:
            B = tensors[name.replace(".lora_A.", ".lora_B.")]
            delta = Factors(A.float(), B.float(), scaling).delta()
            norm = float(delta.norm())
            squares += norm**2
            zeros += int((delta == 0).sum())
            total += delta.numel()
            if norm > 0:
                densities.append(float(delta.abs().sum()) / (delta.numel() ** 0.5 * norm))
    return {
        "frobenius": squares**0.5,
        "gsr": sum(densities) / len(densities) if densities else 0.0,
        "zero_entries": zeros / total,
    }


@torch.inference_mode()
def losses(
    resolved: Plan, updates: Sequence[Path], tasks: dict[str, Sequence[Example]], batch: int = 16
) -> dict[str, float]:
    """The mean loss per answer token of each task's examples, with these updates in force."""
    dtype = torch.float32 if resolved.run.precision == "fp32" else torch.bfloat16
    backbone = load(resolve(resolved.config.model), dtype)
    encoder, carrier = make_encoder(resolved, backbone), make_carrier(resolved, backbone)
    carrier.load(updates)
    carrier.model.eval()
    collate = Collator(backbone.tokenizer.pad_token_id, backbone.encoder_decoder)
    found = {}
    for name, examples in tasks.items():
        rows = sorted((encoder(e) for e in examples), key=len)
        tokens = torch.tensor(sum(len(row.answer) for row in rows))
        found[name] = 0.0
        for start in range(0, len(rows), batch):
            inputs = {
                key: value.to(carrier.model.device)
                for key, value in collate(rows[start : start + batch]).items()
            }
            found[name] += float(resolved.method.loss(carrier.model, inputs, tokens)["task"])
    return found


def measure(config: RunConfig, folder: Path, data: Path | None) -> list[dict[str, Any]]:
    """Run one cell, or what is left of it; what each stage left."""
    assert config.stream is not None
    stream = [replace(task, test=task.dev) for task in load_stream(config.stream, data)]
    run(config, folder, Lines(), stream=stream)
    directory = ModelDirectory(folder)
    stored = directory.config()["settings"]
    resolved = plan(config.model_copy(update={"settings": stored}))
    paths = directory.update_paths()
    dev = {task.name: sample(task.test, config.max_eval, config.seed) for task in stream}
    rows = []
    for k, record in enumerate(directory.stages(), start=1):
        seen = {task.name: dev[task.name] for task in stream[:k]}
        steps = (directory.stage_path(record) / "losses.jsonl").read_text().splitlines()
        last = [json.loads(step)["task"] for step in steps][-max(len(steps) // 4, 1) :]
        rows.append(
            {
                "task": record.name,
                **geometry(paths[k - 1], stored["alpha"] / stored["rank"]),
                "lambda": record.notes.get("l1", {}).get("lambda"),
                "train_loss_last_quarter": sum(last) / len(last),
                "dev_loss": losses(resolved, paths[:k], seen),
                "dev_accuracy": record.accuracy,
                "seconds": sum(record.seconds.values()),
            }
        )
    return rows


def cells(penalties: Sequence[str], rhos: Sequence[float]) -> list[tuple[str, float]]:
    return [("none", 0.0), *((penalty, rho) for penalty in penalties for rho in rhos)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--stream", default="agnews,dbpedia")
    parser.add_argument("--data", type=Path, default=os.environ.get("NLORA_DATA"))
    parser.add_argument("--penalties", default="l1")
    parser.add_argument("--rho", default=RHO)
    parser.add_argument("--max-train", type=int, default=384)
    parser.add_argument("--max-eval", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = options.model
    if model == "random-t5":
        model = random_t5(options.out / "random-t5")
    ledger = options.out / "rows.jsonl"
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    finished = [json.loads(line)["cell"] for line in lines]
    data = Path(options.data) if options.data else None
    rhos = [float(rho) for rho in options.rho.split(",")]
    for penalty, rho in cells(options.penalties.split(","), rhos):
        cell = {
            "model": options.model,
            "stream": options.stream,
            "penalty": penalty,
            "rho": rho,
            "seed": options.seed,
            "max_train": options.max_train,
            "max_eval": options.max_eval,
            "settings": parse_overrides(options.overrides),
        }
        if cell in finished:
            continue
        config = RunConfig(
            model=model,
            method="n-lora",
            stream=options.stream,
            data=str(data) if data else None,
            seed=options.seed,
            max_train=options.max_train,
            max_eval=options.max_eval,
            settings={**cell["settings"], "penalty": penalty, "l1": rho},
        )
        folder = options.out / f"{penalty}-{rho:g}-seed-{options.seed}"
        row = json.dumps({"cell": cell, "stages": measure(config, folder, data)})
        with ledger.open("a") as file:
            file.write(row + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
