"""How much of the updates survives a merge: ours, and PEFT's two, in three kinds of numbers.

    python benchmarks/survival.py MODEL_DIR

MODEL_DIR is of a LoRA method that adds updates up (`inc-lora`, `n-lora`, `seq-lora`). Per way and
numbers: ‖(W′ − W) − ΔW‖ / ‖ΔW‖ over all adapted matrices, in per cent, with ΔW the sum of the
updates, computed in fp64 from their factors, and W the base as it is published (for `nlora export`,
as training held it, which it also writes). `merge_and_unload` is done as people do it: the base is
loaded in these numbers, and the adapters are merged one after another; for `add_weighted_adapter`
(`cat`) they are made one adapter first.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from nlora.adapters.peft_files import read_adapter
from nlora.continual.agreement import stored_plan
from nlora.continual.export import export
from nlora.continual.survival import survival
from nlora.store.directory import ModelDirectory

NUMBERS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model_dir", type=Path)
    given = parser.parse_args()
    directory = ModelDirectory(given.model_dir)
    plan, updates = stored_plan(directory), directory.update_paths()
    base = _load(plan.base.target, torch.float32)
    published = {name: value.clone() for name, value in base.named_parameters()}
    exact = _sum(updates)

    def change(name: str) -> Tensor | None:
        return exact.get(name.removesuffix(".weight"))

    size = (sum(d.square().sum() for d in exact.values()) ** 0.5).item()
    weights = sum(published[f"{n}.weight"].square().sum() for n in exact) ** 0.5
    print(f"{len(updates)} updates of {len(exact)} matrices, ‖ΔW‖/‖W‖ = {size / weights:.2g}\n")
    print("| merged by | " + " | ".join(NUMBERS) + " |\n| --- |" + " ---: |" * len(NUMBERS))
    for way, merge in WAYS.items():
        lost = []
        for name, dtype in NUMBERS.items():
            if merge is None:
                with TemporaryDirectory() as folder:
                    report = export(given.model_dir, Path(folder) / "plain", name, most_lost=200)
                part = report["lost_per_cent"]
            else:
                merged = merge(plan.base.target, updates, dtype)
                plain = {n: v.float() for n, v in merged.named_parameters()}
                part = survival(published, plain, change, dtype).lost
            lost.append(f"{part:.3g} %")
        print(f"| {way} | {' | '.join(lost)} |", flush=True)


def _sum(updates: list[Path]) -> dict[str, Tensor]:
    """The sum of updates by matrix, (out, in) in fp64."""
    found: dict[str, Tensor] = {}
    for path in updates:
        adapter = read_adapter(path)
        for name in adapter.shapes:
            factors = adapter.factors(name)
            delta = factors._replace(A=factors.A.double(), B=factors.B.double()).delta()
            found[name] = found[name] + delta if name in found else delta
    return found


def _load(target: str, dtype: torch.dtype) -> Any:
    kind: Any = AutoModelForCausalLM
    try:
        return kind.from_pretrained(target, dtype=dtype)
    except ValueError:  # an encoder-decoder
        return AutoModelForSeq2SeqLM.from_pretrained(target, dtype=dtype)


def _adapted(target: str, updates: list[Path], dtype: torch.dtype) -> Any:
    base, as_is = _load(target, dtype), {"autocast_adapter_dtype": False}
    model: Any = PeftModel.from_pretrained(base, str(updates[0]), adapter_name="0", **as_is)
    for number, path in enumerate(updates[1:], start=1):
        model.load_adapter(str(path), adapter_name=str(number), **as_is)
    return model


def _one_by_one(target: str, updates: list[Path], dtype: torch.dtype) -> Any:
    names = [str(number) for number in range(len(updates))]
    return _adapted(target, updates, dtype).merge_and_unload(adapter_names=names)


def _weighted(target: str, updates: list[Path], dtype: torch.dtype) -> Any:
    model, names = _adapted(target, updates, dtype), [str(n) for n in range(len(updates))]
    model.add_weighted_adapter(names, [1.0] * len(names), "all", combination_type="cat")
    return model.merge_and_unload(adapter_names=["all"])


WAYS: dict[str, Callable[[str, list[Path], torch.dtype], Any] | None] = {
    "`nlora export`": None,
    "PEFT's `merge_and_unload`": _one_by_one,
    "PEFT's `add_weighted_adapter`, then merged": _weighted,
}


if __name__ == "__main__":
    main()
