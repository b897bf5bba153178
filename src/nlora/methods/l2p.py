"""L2P: a pool of prompts, from which each input selects its own.

"Learning to Prompt for Continual Learning" (arXiv:2112.08654). The model stays frozen; a pool has N
prompts with learnable keys k_i. An input x is read behind the prompts of the K keys nearest to its
query q(x), by cosine, and the loss draws those keys to it (Eq. 5):

    L = L_task + λ Σ_{selected i} (1 − cos(q(x), k_i))

One pool goes on from task to task, so prediction is not told the task. q comes from the frozen
model: the mean of its last hidden states over the prompt of the example, for the image's [CLS]
feature in the paper; this costs a second pass over each input. TRACE, which brought L2P to language
models, takes the mean of the token embeddings instead (`query: embedding`), without that pass.

Pool 10, length 5, K 3 and λ 0.5 are TRACE's, whose keys, though, are not learned but means of the
prompts as they were drawn; code for images selects 4 or 5 and has λ 0.1 or 1. λ hardly matters with
Adam, since nothing else moves the keys. Learning rate 0.03, constant, without weight decay: the
paper's code, which takes it times batch size / 256, and starts keys uniformly between 0 and 0.01,
where Adam overwrites a key by its first step; here between −1 and 1. Each row of a batch selects
for itself, where that code lets the batch vote. The paper's optional penalty on prompts that are
selected often, which must be told where a task begins, is left out.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from nlora.data.encode import IGNORED
from nlora.methods.base import Method, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.adapters.layouts import Selected
    from nlora.methods.context import Batch, Context


class L2pSettings(Settings):
    """The pool, and how an input selects from it."""

    pool: int = Field(10, gt=0, description="prompts in the pool")
    prompt_length: int = Field(5, gt=0, description="vectors per prompt")
    top_k: int = Field(3, gt=0, validate_default=True, description="prompts that an input selects")
    key_weight: float = Field(0.5, ge=0, description="λ, the weight of the key match")
    query: Literal["hidden", "embedding"] = Field(
        "hidden",
        description="what an input is compared to the keys by: the mean of the frozen model's last "
        "hidden states, or of the token embeddings (embedding), which saves a pass",
    )

    @field_validator("top_k")
    @classmethod
    def _enough(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("pool", value):
            raise ValueError(f"the pool has {info.data['pool']} prompts to select from")
        return value


class L2p(Method):
    """Train the prompts that an input selects, and draw their keys to it."""

    name = "l2p"
    summary = "a pool of soft prompts on a frozen model, from which each input selects"
    paper = "arXiv:2112.08654"
    continues = True
    Settings = L2pSettings
    settings: L2pSettings

    @cached_property
    def layout(self) -> Selected:
        """What is read: of the pool what an input selects."""
        from nlora.adapters.layouts import Selected

        s = self.settings
        return Selected(s.pool, s.prompt_length, s.top_k, s.query)

    @property
    def adapter(self) -> str:
        """Soft prompts."""
        return "prompt"

    def own_weight(self) -> str:
        """λ, of the key match."""
        return "key_weight"

    def run_defaults(self) -> dict[str, Any]:
        """The optimiser of the method's paper."""
        return {"learning_rate": 0.03}

    @property
    def extra_passes(self) -> float:
        """The query's."""
        return 1.0 if self.settings.query == "hidden" else 0.0

    def adapter_options(self) -> dict[str, Any]:
        """The prompts are selected from a pool."""
        return {"layout": self.layout}

    def loss(self, ctx: Context, batch: Batch) -> dict[str, Tensor]:
        """The task's, and the distances to the selected keys: a mean over answer tokens, too."""
        terms = super().loss(ctx, batch)
        distances = (1 - self.layout.cosines).sum(1)  # (B,)
        answers = (batch["labels"] != IGNORED).sum(1)  # (B,)
        matched = (answers * distances).sum() / ctx.tokens
        return {**terms, "key match": self.settings.key_weight * matched}
