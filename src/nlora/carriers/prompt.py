"""The update as a soft prompt: trained vectors before the text; the model itself stays frozen.

Prompts of earlier stages are kept, frozen. Which ones are read, and in which order, is a list of
stage indices that a method may set; the default is all, the newest first (Progressive Prompts).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import Parameter

from nlora.carriers.base import snapshot, swapped
from nlora.models.inside import positions


class PromptedModel(nn.Module):
    """A frozen model that reads soft prompts before its input; called and generating like it."""

    prepends = True

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.prompts = nn.ParameterList()
        self.reading: list[int] = []

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def get_base_model(self) -> Any:
        """The Transformers model inside."""
        return self.model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **kwargs: Any) -> Any:
        """The model's output for (B, S) ids; its logits do not count the prompts' positions.

        A boolean `logits_to_keep` of shape (B, S) is understood, as the models understand it.
        """
        inputs = self._prepend(input_ids, attention_mask)
        keep = kwargs.get("logits_to_keep")
        if isinstance(keep, Tensor):
            longer = inputs["attention_mask"].shape[1] - keep.shape[1]
            kwargs["logits_to_keep"] = nn.functional.pad(keep, (longer, 0), value=False)
        if "position_ids" in kwargs:
            kwargs["position_ids"] = positions(inputs["attention_mask"])
        return self.model(**inputs, **kwargs)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **kwargs: Any) -> Tensor:
        """Generated ids. For decoder-only models the (B, S) prompt stands before them, as usual."""
        inputs = self._prepend(input_ids, attention_mask)
        new = self.model.generate(**inputs, **kwargs)
        return new if self.config.is_encoder_decoder else torch.cat([input_ids, new], dim=1)

    def _prepend(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        embeds = self.model.get_input_embeddings()(input_ids)  # (B, S, d)
        read = [self.prompts[i].to(embeds.dtype) for i in self.reading]
        if read:
            # Left padding may stand between prompts and text: it is masked, and takes no position.
            prompt = torch.cat(read)[None].expand(len(input_ids), -1, -1)  # (B, P, d)
            embeds = torch.cat([prompt, embeds], dim=1)
            attention_mask = nn.functional.pad(attention_mask, (prompt.shape[1], 0), value=1)
        return {"inputs_embeds": embeds, "attention_mask": attention_mask}


class Prompt:
    """A soft prompt of `length` vectors per stage, started at random rows of the vocabulary."""

    name = "prompt"
    replaces = False

    def __init__(self, model: Any, length: int) -> None:
        self.length = length
        self.model = PromptedModel(model)
        self._start: list[Tensor] = []

    def trainable(self) -> list[Parameter]:
        """The newest prompt, (length, d)."""
        return list(self.model.prompts)[-1:]

    def begin(self, continued: bool = False, keep_previous: bool = False) -> None:
        """A fresh prompt before all earlier ones, or the last one continued."""
        self.replaces = continued and len(self.model.prompts) > 0
        if not self.replaces:
            vocabulary = self.model.model.get_input_embeddings().weight
            rows = torch.randint(len(vocabulary), (self.length,))
            self._add(vocabulary[rows.to(vocabulary.device)].detach().float().clone())
        self._start = snapshot(self.trainable()) if keep_previous else []

    def _add(self, prompt: Tensor) -> None:
        for earlier in self.model.prompts:
            earlier.requires_grad_(False)
        self.model.prompts.append(Parameter(prompt))
        self.model.reading = list(reversed(range(len(self.model.prompts))))

    @contextmanager
    def reading(self, stages: Sequence[int]) -> Iterator[None]:
        """Read the prompts of these stages, in this order, instead of all."""
        kept, self.model.reading = self.model.reading, list(stages)
        try:
            yield
        finally:
            self.model.reading = kept

    def previous(self) -> AbstractContextManager[None]:
        """The model as it was when this stage began: a continued prompt as it was, or none."""
        if self.replaces:
            return swapped(self.trainable(), self._start)
        return self.reading(self.model.reading[1:])

    def save(self, folder: Path) -> None:
        """The newest prompt, in `prompt.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        prompt = self.trainable()[0].detach().contiguous()
        save_file({"prompt": prompt}, folder / "prompt.safetensors")

    def load(self, folders: Sequence[Path]) -> None:
        """Put saved prompts in force, oldest first."""
        device = self.model.model.get_input_embeddings().weight.device
        for folder in folders:
            self._add(load_file(folder / "prompt.safetensors")["prompt"].to(device))

    def notes(self) -> dict[str, float]:
        """Nothing to record."""
        return {}
