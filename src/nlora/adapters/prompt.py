"""The update as a soft prompt: trained vectors beside the text; the model itself stays frozen.

Prompts of earlier stages are kept, frozen. Which ones are read is a list of stage indices that a
method may set; the default is all, the newest first. Which of their vectors stand where is a
`Layout` (`adapters.layouts`), which the method gives.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nlora.adapters.base import Abilities, Adapter, Beginning, snapshot, swapped
from nlora.adapters.layouts import Layout, Text, Vocabulary
from nlora.adapters.settings import AdapterSettings
from nlora.backbones.states import lookup_factor
from nlora.backbones.structure import accepts, last_run, positions
from nlora.errors import NloraError

FILE = "prompt.safetensors"


class PromptedModel(nn.Module):
    """A frozen model that reads soft prompts with its input; called and generating like it."""

    prompted = True

    def __init__(self, model: Any, layout: Layout) -> None:
        super().__init__()
        if not model.config.is_encoder_decoder and (lacking := _lacks(type(model))):
            raise NloraError(
                f"{type(model).__name__} cannot be given soft prompts, since it {lacking}; choose "
                "a method over LoRA adapters or all parameters"
            )
        self.model = model.requires_grad_(False)
        self.layout = layout
        self.vocabulary = Vocabulary(model.get_input_embeddings(), lookup_factor(model))
        self.updates: Any = nn.ModuleList()
        self.reading: list[int] = []

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    def get_base_model(self) -> Any:
        """The Transformers model inside."""
        return self.model

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Save memory in training; the Trainer asks for it."""
        self.model.activation_checkpointing_enable(**kwargs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **kwargs: Any) -> Any:
        """The model's output for (B, S) ids; its logits do not count the prompts' positions.

        A boolean `logits_to_keep` of shape (B, S) is understood, as the models understand it. The
        tokens that it has predicted at the end of a row are the answer; what stands before them is
        the text, a chat's earlier answers with it.
        """
        keep = kwargs.get("logits_to_keep")
        answers = torch.zeros_like(input_ids, dtype=torch.bool)
        if isinstance(keep, Tensor):  # position s predicts token s + 1
            answers[:, 1:] = keep[:, :-1]
        inputs, answers = self._read(input_ids, attention_mask, answers)
        if isinstance(keep, Tensor):
            kwargs["logits_to_keep"] = nn.functional.pad(answers[:, 1:], (0, 1), value=False)
        if "position_ids" in kwargs:
            kwargs["position_ids"] = positions(inputs["attention_mask"])
        return self.model(**inputs, **kwargs)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **kwargs: Any) -> Tensor:
        """Generated ids. For decoder-only models the (B, S) prompt stands before them, as usual."""
        nothing = torch.zeros_like(input_ids, dtype=torch.bool)
        inputs, _ = self._read(input_ids, attention_mask, nothing)
        new = self.model.generate(**inputs, **kwargs)
        return new if self.config.is_encoder_decoder else torch.cat([input_ids, new], dim=1)

    def _read(self, ids: Tensor, mask: Tensor, answers: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Embeddings (B, P + S, d) and mask with the prompts put in, and where answers are now."""
        embeds = self.vocabulary.look_up(ids)  # (B, S, d)
        updates = [self.updates[i] for i in self.reading]
        if updates:
            text = Text(self.model, ids, embeds, mask.bool() & ~last_run(answers, mask.bool()))
            vectors, column = self.layout.place(updates, text)
            embeds = insert(embeds, vectors.to(embeds.dtype), column)
            mask = insert(mask, mask.new_ones(vectors.shape[:2]), column)
            answers = insert(answers, answers.new_zeros(vectors.shape[:2]), column)
        return {"inputs_embeds": embeds, "attention_mask": mask}, answers


def _lacks(kind: Any) -> str | None:
    """What a decoder-only model of this class lacks to be given soft prompts, if anything."""
    if not accepts(kind, "logits_to_keep"):  # how a training example tells where its answer begins
        return "does not take `logits_to_keep`"
    if "inputs_embeds" not in inspect.signature(kind.prepare_inputs_for_generation).parameters:
        return "generates from token ids alone"
    return None


def insert(rows: Tensor, new: Tensor, column: Tensor) -> Tensor:
    """Rows (B, S, …) with `new` (B, P, …) before a column of each (B,), where 0 ≤ column ≤ S.

    >>> insert(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[7], [8]]), torch.tensor([0, 1]))
    tensor([[7, 1, 2],
            [3, 8, 4]])
    """
    size, more = rows.shape[1], new.shape[1]
    places = torch.arange(size + more, device=rows.device)  # (S + P,)
    offset = places - column[:, None]  # (B, S + P): counted from the first new one
    old = torch.where(offset < 0, places, places - more)
    source = torch.where((offset >= 0) & (offset < more), size + offset, old)
    each = torch.arange(len(rows), device=rows.device)[:, None]  # (B, 1)
    return torch.cat([rows, new], dim=1)[each, source]


class Prompt(Adapter):
    """A soft prompt per stage, or one that is continued."""

    name = "prompt"
    summary = "vectors that are read beside the text"
    can = Abilities(quantized=True)

    def __init__(self, model: Any, layout: Layout) -> None:
        self.model = PromptedModel(model, layout)
        self._start: list[Tensor] = []
        self._held: dict[Path, dict[str, Tensor]] = {}
        """Saved prompts that are read without their files."""

    @classmethod
    def build(cls, model: Any, settings: AdapterSettings, *, layout: Layout) -> Self:
        """Prompts as the method lays them out; no setting matters."""
        return cls(model, layout)

    @classmethod
    def soft_tokens(cls, updates: int, *, layout: Layout) -> int:
        """As many as the layout has read."""
        return layout.count(updates)

    def update(self) -> dict[str, Tensor]:
        """The tensors of the newest update, by the layout's names."""
        return {name: p for update in self.model.updates[-1:] for name, p in update.items()}

    def prepare(self, asked: Beginning) -> None:
        """A fresh update beside all earlier ones, or the last one continued."""
        self.replaces = asked.continued and len(self.model.updates) > 0
        if not self.replaces:
            self._add(self.model.layout.fresh(self.model.vocabulary))
        self._start = snapshot(self.update().values()) if asked.keep_previous else []

    @torch.no_grad()
    def start_at(self, words: Sequence[Sequence[int]]) -> None:
        """Let a fresh prompt begin with words: each vector the mean of a word's token embeddings.

        Words beyond the prompt's length are left out.
        """
        vocabulary = self.model.vocabulary
        for vector, ids in zip(self.model.updates[-1]["prompt"], words, strict=False):
            vector.copy_(vocabulary.rows(torch.tensor(list(ids))).mean(0))

    def _add(self, tensors: Mapping[str, Tensor]) -> None:
        self.model.updates.requires_grad_(False)
        self.model.updates.append(nn.ParameterDict(dict(sorted(tensors.items()))))
        self.model.reading = list(reversed(range(len(self.model.updates))))

    @contextmanager
    def reading(self, stages: Sequence[int]) -> Iterator[None]:
        """Read the prompts of these stages, in this order, instead of all."""
        kept, self.model.reading = self.model.reading, list(stages)
        try:
            yield
        finally:
            self.model.reading = kept

    def consolidate(self) -> None:
        """Nothing: prompts stand side by side."""

    def hold(self, folders: Collection[Path]) -> bool:
        """One that cannot be read leaves those that were held."""
        self._held = {folder: load_file(folder / FILE) for folder in folders}
        return True

    @contextmanager
    def after(self, folders: Sequence[Path]) -> Iterator[None]:
        """The model that reads these saved prompts, the last first."""
        updates, reading = self.model.updates, self.model.reading
        try:
            self._read(folders)
            yield
        finally:
            self.model.updates, self.model.reading = updates, reading

    def previous(self) -> AbstractContextManager[None]:
        """The model as it was when this stage began: a continued prompt as it was, or none."""
        if self.replaces:
            return swapped(self.update().values(), self._start)
        return self.reading(self.model.reading[1:])

    def save(self, folder: Path) -> None:
        """The newest update, in `prompt.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: p.detach().contiguous() for name, p in self.update().items()}
        save_file(tensors, folder / FILE)

    def load(self, folders: Sequence[Path]) -> None:
        """Activate saved prompts, oldest first."""
        self._read(folders)
        self.replaces = False
        self._start = []

    def _read(self, folders: Sequence[Path]) -> None:
        self.model.updates, self.model.reading = nn.ModuleList(), []
        device = self.model.vocabulary.device
        for folder in folders:
            tensors = self._held.get(folder) or load_file(folder / FILE)
            self._add({name: tensor.to(device, copy=True) for name, tensor in tensors.items()})

    def merged(self) -> Any:
        """Raises NloraError: a prompt is not part of the model's weights."""
        raise NloraError("soft prompts cannot be merged into the weights of a model")
