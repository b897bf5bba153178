"""Lower layers that stay as they are from the second stage on: the setting `frozen_layers`.

"Spurious Forgetting in Continual Learning of Language Models" (arXiv:2501.13453) finds that the
first steps of a new task undo how the model is aligned to the old ones, mostly in the lower layers,
and that what was learned there comes back soon; freezing the input embeddings and the lowest layers
of all that is trained keeps it. So here: with LoRA the factors of those layers keep the value that
they have when the stage begins, which in a fresh adapter is no change at all.

A number of layers is meant of every stack (of an encoder-decoder's both), a share below 1 of its
layers. The first stage trains everything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nlora.errors import NloraError

if TYPE_CHECKING:
    from nlora.methods.context import Context
    from nlora.methods.settings import Settings

_LAYER = re.compile(r"(.*?)(?:^|\.)(\d+)\.")
"""The name of a stack of layers, and a layer's number, in the name of a parameter."""


def frozen_parameters(settings: Settings, ctx: Context) -> list[str]:
    """The names, in the model, of what this stage leaves as it is.

    Raises NloraError, at the first stage already, where that is nothing or all that is trained.
    """
    asked = settings.frozen_layers
    if not asked:
        return []
    from nlora.backbones.structure import base_model

    trained, base = ctx.adapter.trained(), base_model(ctx.model)
    names = [name for name, _ in base.named_parameters()]
    kinds = {_kind(found[1]) for found in map(_LAYER.match, names) if found}
    layers: dict[str, int] = {}
    for name, _ in ctx.model.named_parameters():
        if (found := _LAYER.match(name)) and _kind(found[1]) in kinds:
            layers[found[1]] = max(layers.get(found[1], 0), int(found[2]) + 1)
    counts = {s: int(asked) if asked >= 1 else max(round(asked * n), 1) for s, n in layers.items()}
    embeddings = set(map(id, base.get_input_embeddings().parameters()))
    chosen = [
        name
        for name, parameter in trained.items()
        if id(parameter) in embeddings
        or ((found := _LAYER.match(name)) and int(found[2]) < counts.get(found[1], 0))
    ]
    if not chosen or len(chosen) == len(trained):
        what = "nothing" if not chosen else "everything"
        most = max(layers.values(), default=0)
        raise NloraError(
            f"setting 'frozen_layers': {asked:g} freezes {what} that adapter "
            f"'{ctx.adapter.name}' trains; the model has {most} layers"
        )
    return chosen if ctx.stage.index > 1 else []


def _kind(stack: str) -> str:
    """What a model calls its layers: `layers` of "model.layers"."""
    return stack.rpartition(".")[2]
