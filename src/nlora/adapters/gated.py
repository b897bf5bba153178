"""LoRA updates, each weighed by a gate that reads the input: W₀ + Σ_i a_i(x)·ΔW_i.

A gate is a small network of its own on what the frozen embeddings make of a text: with m (d,) the
mean of the embeddings of the prompt's tokens,

    x_i = SiLU(U_i·SiLU(D_i·m)),   a_i = |2·σ(4·cos(k_i, x_i)) − 1| in [0, 0.964]

with D (hidden, d), U (d, hidden) and a key k (d,), one gate per update (GainLoRA's,
arXiv:2505.15424). All updates stay apart, so cost and storage grow with their number, and no plain
model is the same. Gates are the state of the stack: the newest is trained with its update.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import cosine_similarity, linear, silu

from nlora.adapters.base import Abilities, Beginning
from nlora.adapters.lora import ADAPTER, Lora
from nlora.adapters.settings import AdapterSettings
from nlora.backbones.states import masked_mean
from nlora.backbones.structure import accepts, cache_argument, last_run
from nlora.errors import NloraError
from nlora.fast.packing import reads_by_mask
from nlora.fast.prefix import why_not_after
from nlora.lowrank.factors import Factors, concatenate
from nlora.merging.base import Consolidation

PARTS = ("down", "up", "key")


class Gate(NamedTuple):
    """How much an update counts for an input."""

    down: Tensor
    """D (hidden, d)."""
    up: Tensor
    """U (d, hidden)."""
    key: Tensor
    """k (d,)."""

    def hidden(self, means: Tensor) -> Tensor:
        """SiLU(D·m) of means (B, d), (B, hidden)."""
        return silu(linear(means, self.down))

    def features(self, means: Tensor) -> Tensor:
        """x of means (B, d), (B, d)."""
        return silu(linear(self.hidden(means), self.up))

    def weights(self, means: Tensor) -> Tensor:
        """a of means (B, d), (B,)."""
        cosines = cosine_similarity(self.features(means), self.key, dim=-1)
        return (2 * torch.sigmoid(4 * cosines) - 1).abs()


class Gated(Lora):
    """A fresh LoRA adapter per stage, and a gate for each."""

    name = "gated"
    summary = "LoRA updates, each weighed by a trained gate that reads the input"
    can = Abilities(start=True, factors=True, gradients=True, quantized=True)

    def __init__(self, model: Any, settings: AdapterSettings, hidden: int = 100) -> None:
        s = settings
        super().__init__(model, s.rank, s.alpha, s.dropout, s.target_modules, s.fold)
        base: Any = self.model.get_base_model()
        decoder_only = not base.config.is_encoder_decoder
        if decoder_only and not accepts(type(base), "logits_to_keep"):
            raise NloraError(
                f"{type(base).__name__} cannot be gated by its prompt, since it does not take "
                "`logits_to_keep`; choose another method over LoRA adapters"
            )
        self.model.prompted = True  # what is read depends on the whole text (`fast.prefix`)
        self.model.narrowed = self._narrowed
        if decoder_only:  # found now and kept: gates of parts of a text are others
            why_not_after(self.model)
            reads_by_mask(base)
        self.hidden = hidden
        self._embed = base.get_input_embeddings()
        self._cache = cache_argument(type(base))
        self._weights: Tensor | None = None
        """a of the batch in hand, (B, updates), oldest first."""
        self._hooks: list[Any] = []
        reader = base if decoder_only else base.get_encoder()
        reader.register_forward_pre_hook(self._read_text, with_kwargs=True)
        for layer in self.layers.values():
            layer.lora_B[ADAPTER].register_forward_hook(self._weigh_newest)

    @classmethod
    def build(
        cls,
        model: Any,
        settings: AdapterSettings,
        consolidation: str | Consolidation = "sum",
        hidden: int = 100,
    ) -> Self:
        """LoRA as the settings say, and gates of so many hidden units."""
        if consolidation != "sum":
            raise NloraError("gates weigh a sum of updates; set consolidation=sum")
        return cls(model, settings, hidden)

    def gates(self) -> list[Gate]:
        """The gate of each update, oldest first; that of the newest is trained."""
        count = len(self.extra) // len(PARTS)
        return [Gate(*(self.extra[f"gate_{i}_{part}"] for part in PARTS)) for i in range(count)]

    def means(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """m of each text, (B, d) in fp32; the mask is set where the prompt is."""
        return masked_mean(self._embed(input_ids).float(), mask)

    def choose(self, asked: Beginning) -> None:
        """A gate for a fresh update, that begins as the last one ended, with a key of its own."""
        known, newest = self.gates(), len(self.past)
        if len(known) == newest:
            width = self._embed.weight.shape[1]
            device = next(iter(self.factors().values())).A.device
            key = torch.empty(width, device=device).uniform_(-1, 1)
            if known:
                parts = [known[-1].down.detach().clone(), known[-1].up.detach().clone(), key]
            else:
                down = torch.empty(self.hidden, width, device=device)
                up = torch.empty(width, self.hidden, device=device)
                for part in (down, up):
                    nn.init.kaiming_uniform_(part, math.sqrt(5))
                parts = [down, up, key]
            for part, values in zip(PARTS, parts, strict=True):
                self.extra[f"gate_{newest}_{part}"] = Parameter(values)
        for name, part in self.extra.items():
            part.requires_grad_(name.startswith(f"gate_{newest}_"))
        # A part of the model, so that the optimiser and whatever wraps the model find them.
        self.model.gates = nn.ParameterDict(self.extra)

    def activate(self) -> None:
        """The earlier updates beside each matrix, each by its gate."""
        self._active.clear()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for name, layer in self.layers.items() if self.past else ():
            pairs = [update[name] for update in self.past]
            ranks = torch.tensor([len(pair.A) for pair in pairs], device=pairs[0].A.device)
            hook = self._weigh_earlier(concatenate(pairs), ranks)
            self._hooks.append(layer.get_base_layer().register_forward_hook(hook))
        for factors in self.factors().values():
            factors.A.requires_grad_("A" not in self._frozen)
            factors.B.requires_grad_("B" not in self._frozen)

    def merged(self) -> Any:
        """Raises NloraError: there is no such model."""
        raise NloraError("updates that are weighed by the input are no plain model")

    def _read_text(self, reader: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Weigh the updates for a batch, unless it goes on with texts that were read before."""
        gates = self.gates()
        ids: Any = kwargs.get("input_ids", args[0] if args else None)
        cache = kwargs.get(self._cache) if self._cache else None
        if not gates or (cache is not None and cache.get_seq_length() > 0):
            return
        mask = kwargs.get("attention_mask", torch.ones_like(ids)).bool()
        keep = kwargs.get("logits_to_keep")
        if isinstance(keep, Tensor) and keep.dim() == 2:  # position s predicts token s + 1
            answers = nn.functional.pad(keep[:, :-1], (1, 0), value=False)
            mask = mask & ~last_run(answers, mask)
        means = self.means(ids, mask)
        self._weights = torch.stack([gate.weights(means) for gate in gates], dim=1)

    @contextmanager
    def _narrowed(self, rows: slice) -> Iterator[None]:
        """Meanwhile the texts that were read last are these rows of them, which go on alone."""
        whole = self._weights
        self._weights = None if whole is None else whole[rows]
        try:
            yield
        finally:
            self._weights = whole

    def _weigh_newest(self, module: Any, inputs: Any, output: Tensor) -> Tensor:
        if self._weights is None or not self.extra:
            return output
        return output * self._weights[:, -1, None, None].to(output.dtype)

    def _weigh_earlier(self, factors: Factors, ranks: Tensor) -> Any:
        A, B, _ = factors  # (R, in), (out, R)

        def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
            assert self._weights is not None
            weights = self._weights[:, : len(ranks)]
            each = torch.repeat_interleave(weights, ranks, dim=1, output_size=len(A))  # (B, R)
            low = linear(inputs[0].to(A.dtype), A) * each[:, None].to(A.dtype)
            return output + linear(low, B).to(output.dtype)

        return hook
