"""What is inside a wrapped model, and what it takes."""

import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any

from torch import Tensor, nn


def wrappers(model: nn.Module) -> Iterator[nn.Module]:
    """The model and what it wraps (DDP, PEFT, soft prompts), down to the Transformers model."""
    inner: Any = model
    while True:
        yield inner
        if hasattr(inner, "module"):
            inner = inner.module
        elif hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        else:
            return


def base_model(model: nn.Module) -> Any:
    """The Transformers model inside whatever wraps it."""
    *_, base = wrappers(model)
    return base


def layers_of(reader: nn.Module) -> tuple[nn.Module, str] | None:
    """What holds the list of a model's layers, and by which name; None where there is no list.

    It is the first list of several modules from the top down. XLM has a list of attentions beside
    one of feed-forward layers, and none of both. A model of one layer has no such list, whatever
    lists there are within the layer (T5's).
    """
    if getattr(getattr(reader, "config", None), "num_hidden_layers", None) == 1:
        return None
    level = [reader]
    while level:
        for module in level:
            lists = {n: c for n, c in module.named_children() if isinstance(c, nn.ModuleList)}
            sizes = {name: len(child) for name, child in lists.items() if len(child) > 1}
            if sizes:
                name, size = next(iter(sizes.items()))
                return (module, name) if [*sizes.values()].count(size) == 1 else None
        level = [child for module in level for child in module.children()]
    return None


@cache
def accepts(kind: type[nn.Module], argument: str) -> bool:
    """Whether models of this class take the argument by name."""
    return argument in inspect.signature(kind.forward).parameters


def cache_argument(kind: type[nn.Module]) -> str | None:
    """What models of this class call their keys and values: renamed in Transformers 5."""
    return next((name for name in ("cache", "past_key_values") if accepts(kind, name)), None)


def positions(attention_mask: Tensor) -> Tensor:
    """Position of each token (B, S), counted from the first that is not padding."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)


def last_run(chosen: Tensor, attention_mask: Tensor) -> Tensor:
    """Of chosen tokens (B, S) those that end a row without another between them.

    The mask (B, S), true where no padding is, may be false on either side.

    >>> chosen, mask = Tensor([[0, 1, 0, 1, 1, 0]]).bool(), Tensor([[1, 1, 1, 1, 1, 0]]).bool()
    >>> last_run(chosen, mask).tolist()
    [[False, False, False, True, True, False]]
    """
    to_the_end = (chosen | ~attention_mask).flip(1).cumprod(1).flip(1).bool()
    return chosen & to_the_end


def learned_positions(model: nn.Module) -> int | None:
    """For how many positions a model has embeddings, and no row may have more tokens.

    They are learned, or a table of computed ones that has an end (GPT-J, CTRL). None where
    positions are relative, or computed for whatever row there is: such a model reads on.
    """
    names = ("wpe", "embed_positions", "positions_embed", "position_embeddings", "pos_encoding")
    base = base_model(model)
    learned = [
        (name, module.num_embeddings)
        for name, module in base.named_modules()
        if isinstance(module, nn.Embedding)
    ]
    computed = [(name, len(table)) for name, table in base.named_buffers() if table.dim() == 2]
    found = [size for name, size in [*learned, *computed] if name.rpartition(".")[2] in names]
    stated = getattr(base.config, "max_position_embeddings", None)  # OPT has two rows more
    return min([*found, *([stated] if stated else [])]) if found else None


_LEFT_OPEN = (
    *("temperature", "top_k", "top_p", "top_h", "min_p", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "min_new_tokens"),
    *("repetition_penalty", "no_repeat_ngram_size"),
    *("encoder_repetition_penalty", "encoder_no_repeat_ngram_size"),
    *("exponential_decay_length_penalty", "guidance_scale", "sequence_bias", "penalty_alpha"),
    *("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"),
)
PLAIN: dict[str, Any] = {
    **{"num_beams": 1, "num_return_sequences": 1, "min_length": 0},
    **dict.fromkeys(_LEFT_OPEN),
}
"""Arguments of `generate` with which the model's probabilities decide alone. What it leaves open is
taken from the generation_config that a model is published with, a penalty for repetition, say."""


def end_tokens(model: nn.Module, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the tokenizer's, and all of the model's generation_config."""
    config = getattr(base_model(model), "generation_config", None)
    told = getattr(config, "eos_token_id", None)
    told = [told] if isinstance(told, int) else list(told or ())
    return list(dict.fromkeys([tokenizer.eos_token_id, *told]))
