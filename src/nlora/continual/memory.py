"""How much memory training will take, computed before a weight is read.

One step is taken with a model that has shapes and no numbers (PyTorch's "meta" device), on prompts
as long as the longest micro-batch. Every tensor that it would make is counted from its making until
it is let go, so what is kept for the backward pass, gradients, recomputation and the widest moment
of the backward pass are all in it.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache

from nlora.backbones.hardware import device
from nlora.backbones.quantized import Quantization
from nlora.backbones.structure import base_model
from nlora.data.batches import shared_prefixes
from nlora.data.encode import Encoded
from nlora.fast.dropout import use_quick_dropout
from nlora.fast.packing import arranged
from nlora.fast.prefix import Prefixes, continuing, why_not
from nlora.plan.settings import RunSettings

STATES = {"adamw": 2, "adam": 2, "adafactor": 0, "sgd": 0, "lion": 1, "rmsprop": 1, "adagrad": 1}
"""Numbers that an optimiser keeps per trained one, by what its name begins with."""

QUANTIZED = {"4bit": 0.516, "8bit": 1.0}
"""Bytes of a number; the scales of 4-bit numbers are quantised too (64 and 256 share one)."""

GAPS = 2 / 3
"""Of what a step holds at once: a block that glibc frees often does not take one of the same size
again (docs/results/t5-speed.md). With gradient checkpointing what a step would hold without it
passes through the heap, too; half of that counts. Measured with tiny-t5 and SmolLM2."""


@dataclass(frozen=True)
class Memory:
    """Bytes that training takes at its widest moment."""

    weights: int
    """Of the model, the update among them."""
    optimizer: int
    """What it keeps of each trained number."""
    step: int
    """What a step makes: activations, gradients, logits."""
    gaps: int = 0
    """What a process on a CPU holds between its tensors beside them."""

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.step + self.gaps


class Counting(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside it, now and at the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return out

    def ignore(self, tensors: Any) -> None:
        """These are counted elsewhere."""
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def _see(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def estimate(
    model: Any,
    examples: Sequence[Encoded],
    rows: int,
    optimizer: str,
    checkpointing: bool,
    quantization: Quantization = "none",
    packing: bool = False,
) -> Memory:
    """Memory of training a model of the "meta" device, whose update is in it.

    The micro-batch is of `rows` examples, the longest; with `packing` they share rows. What methods
    keep beside the model, its update and the optimiser is not counted.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    in_matrices = {
        id(m.weight)
        for m in base_model(model).modules()
        if isinstance(m, nn.Linear) and m is not base_model(model).get_output_embeddings()
    }
    small = QUANTIZED.get(quantization)
    weights = sum(
        p.numel() * (small if small and id(p) in in_matrices else p.element_size())
        for p in model.parameters()
    )
    count = sum(p.numel() for p in trained)
    states = next((n for name, n in STATES.items() if optimizer.startswith(name)), 2)
    longest = sorted(examples, key=len, reverse=True)[:rows]
    step = _step(model, trained, longest, checkpointing, packing)
    gaps = 0
    if device().type == "cpu":
        passing = _step(model, trained, longest, False, packing) if checkpointing else step
        gaps = round(GAPS * (step + passing) / 2)
    return Memory(int(weights), 4 * states * count, step, gaps)


def what_fits(have: int, run: RunSettings, rows: int, at: Callable[..., Memory]) -> str | None:
    """What to set so that training fits into so many bytes: one line, None where it does already.

    `rows` are those of a micro-batch; `at(rows, checkpointing, quantization)` estimates.
    """
    now = at(rows, run.gradient_checkpointing, run.quantization)
    if now.total <= have:
        return None
    told: list[str] = []
    checkpointing, quantization, split = run.gradient_checkpointing, run.quantization, 1
    steps = [] if checkpointing else ["gradient_checkpointing=true"]
    steps += [f"accumulation={run.accumulation * 2**n}" for n in range(1, rows.bit_length())]
    steps += ["quantization=4bit"] if quantization == "none" else []
    for step in steps:
        if step.startswith("accumulation"):
            told = [t for t in told if not t.startswith("accumulation")]
            split *= 2
        checkpointing = checkpointing or step.startswith("gradient")
        quantization = "4bit" if step.startswith("quantization") else quantization
        told.append(step)
        if at(max(rows // split, 1), checkpointing, quantization).total <= have:
            return f"training will not fit: set {', '.join(told)}"
    return (
        "training will not fit, with gradient checkpointing, one example at a time and 4 bits "
        "neither; share the model out (sharding=fsdp) or take a smaller max_length"
    )


def _step(
    model: Any,
    trained: list[nn.Parameter],
    examples: Sequence[Encoded],
    saving: bool,
    packing: bool,
) -> int:
    base = base_model(model)
    if device().type == "cpu":
        use_quick_dropout(base)
    model.train()
    if saving:
        base.gradient_checkpointing_enable()
    counting = Counting()
    counting.ignore([*model.parameters(), *model.buffers()])
    with torch.device("meta"), counting:
        logits = _logits(model, base, examples, packing)
        loss = nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
        del logits
        loss.backward()
        for parameter in trained:
            parameter.grad = None
    if saving:
        base.gradient_checkpointing_disable()
    return counting.most


def _logits(model: Any, base: Any, examples: Sequence[Encoded], packing: bool) -> Tensor:
    """At the answers of a batch, as `fast.logits` computes them, of no numbers.

    Masks are given whole: which of their entries count cannot be asked where there are none.
    """
    rows = len(examples)
    answers = sum(len(e.answer) for e in examples)
    if base.config.is_encoder_decoder:
        length, said = max(len(e.prompt) for e in examples), max(len(e.answer) for e in examples)
        ids = torch.zeros(rows, length, dtype=torch.long)
        mask = torch.zeros(rows, 1, 1, length, dtype=base.dtype)
        given = torch.zeros(rows, said, dtype=torch.long)
        logits = model(
            input_ids=ids, attention_mask=mask, decoder_input_ids=given, use_cache=False
        ).logits
        return logits.flatten(0, 1)[:answers]
    shared = [] if why_not(model) else shared_prefixes(examples)
    begun = {row: length for group, length in shared for row in group}
    lengths = [len(example) - begun.get(row, 0) for row, example in enumerate(examples)]
    rows, width = arranged(lengths)[1] if packing else (rows, max(lengths))
    past: dict[str, Any] = {"use_cache": False}
    before = 0
    if shared:
        ids = torch.zeros(len(shared), max(length for _, length in shared), dtype=torch.long)
        cache = DynamicCache(config=base.config)
        model(input_ids=ids, **continuing(model, cache))
        prefixes = Prefixes(cache, ids, torch.zeros(len(examples), dtype=torch.long))
        cache = prefixes.cache(rows, packing)
        before = cache.get_seq_length()
        past = continuing(model, cache)
    mask = torch.zeros(rows, 1, width, before + width, dtype=base.dtype)
    said = max(answers // rows, 1)
    logits = model(
        input_ids=torch.zeros(rows, width, dtype=torch.long),
        attention_mask=mask,
        logits_to_keep=said,
        **past,
    ).logits
    return logits.flatten(0, 1)
