"""Routing by the input: which task an example belongs to, in closed form.

De-LoRA keeps a LoRA adapter per task and chooses among them by linear discriminant analysis on what
the frozen base model makes of the raw text, without prompt: e(x) is the mean of its last hidden
states (of the encoder where there is one). Of each task t the mean μ_t is kept and its scatter
added to a pooled S; no text is. With n texts of T tasks and d dimensions

    Σ = S/(n − T),  Σ ← (1 − γ)·Σ + γ·(tr Σ/d)·I,  γ = 0.01
    task of x = argmax_t e(x)ᵀΣ⁻¹μ_t − ½·μ_tᵀΣ⁻¹μ_t

in float64. It needs no old data and no task identity, but the adapters are kept one by one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nlora.data.batches import by_budget, pad
from nlora.data.task import Example, sample
from nlora.methods.base import Learner, Stage
from nlora.models.inside import base_model

TEXTS = 1000
"""Training texts of a task that are looked at, at most."""
SHRINKAGE = 0.01
BATCH_TOKENS = 4096


class Router:
    """Means of every stage so far and their pooled scatter."""

    def __init__(self) -> None:
        self.means: list[Tensor] = []
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)
        self.texts = 0
        self._known: dict[str, Tensor] = {}

    def learn(self, learner: Learner, stage: Stage) -> None:
        """Take up the texts of one more stage."""
        examples = [e for data in stage.tasks for e in sample(data.train, TEXTS, stage.seed)]
        self.add(self.features(learner, [e.text for e in examples]))

    def add(self, features: Tensor) -> None:
        """Take up the features (n, d) of one more stage."""
        mean = features.mean(0)
        centred = features - mean
        scatter = centred.T @ centred
        self.scatter = scatter if not self.means else self.scatter + scatter
        self.means.append(mean)
        self.texts += len(features)

    def choose(self, features: Tensor) -> list[int]:
        """The stage 1, 2, … of each row of features (n, d)."""
        means = torch.stack(self.means)  # (T, d)
        size = len(self.scatter)
        spread = self.scatter / max(self.texts - len(means), 1)
        level = float(spread.trace()) / size
        spread = (1 - SHRINKAGE) * spread + SHRINKAGE * max(level, 1e-12) * torch.eye(size)
        weights = torch.linalg.solve(spread, means.T)  # (d, T): Σ⁻¹μ
        scores = features @ weights - 0.5 * (means.T * weights).sum(0)
        return [int(i) + 1 for i in scores.argmax(1)]

    def route(self, learner: Learner, examples: Sequence[Example]) -> list[int]:
        """The stage to answer each example with."""
        texts = [e.text for e in examples]
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            self._known.update(zip(new, self.features(learner, new), strict=True))
        return self.choose(torch.stack([self._known[text] for text in texts]))

    @torch.inference_mode()
    def features(self, learner: Learner, texts: Sequence[str]) -> Tensor:
        """e(x) of each text, (n, d), in float64."""
        encoder = learner.encoder
        limit = min(encoder.max_length, encoder.max_text_tokens or encoder.max_length)
        rows = encoder.tokenizer(list(texts), truncation=True, max_length=limit).input_ids
        rows = [row or [encoder.tokenizer.eos_token_id] for row in rows]
        model = learner.carrier.model.eval()
        reader = _reader(base_model(model))
        found: dict[int, Tensor] = {}
        with learner.standing(0):
            for batch in by_budget([len(row) for row in rows], BATCH_TOKENS):
                ids = pad([rows[i] for i in batch], encoder.tokenizer.pad_token_id, left=False)
                mask = pad([[1] * len(rows[i]) for i in batch], 0, left=False)
                ids, mask = ids.to(model.device), mask.to(model.device)
                states = reader(input_ids=ids, attention_mask=mask).last_hidden_state
                sums = (states.double() * mask[..., None]).sum(1)
                found.update(zip(batch, (sums / mask.sum(1, keepdim=True)).cpu(), strict=True))
        return torch.stack([found[i] for i in range(len(rows))])

    def save(self, folder: Path) -> None:
        """All that is kept, in `router.safetensors`."""
        tensors = {"means": torch.stack(self.means), "scatter": self.scatter}
        save_file({**tensors, "texts": torch.tensor(self.texts)}, folder / "router.safetensors")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        tensors = load_file(folder / "router.safetensors")
        self.means = list(tensors["means"])
        self.scatter = tensors["scatter"]
        self.texts = int(tensors["texts"])


def _reader(base: Any) -> Any:
    """What turns ids into hidden states: the encoder, or the model without its output layer."""
    if base.config.is_encoder_decoder:
        return base.get_encoder()
    return getattr(base, base.base_model_prefix)
