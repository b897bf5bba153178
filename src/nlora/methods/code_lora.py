"""CoDe-LoRA: what tasks share is consolidated in one adapter, what is a task's own is kept beside.

"CoDe-LoRA: Mitigating the Orthogonality Dilemma in Continual Learning of LLMs via Knowledge
Consolidation and Decoupling" (arXiv:2610.08312). A new LoRA adapter E_t per task is trained on top
of the shared branch Co_{t−1}, and then folded into it (consolidation `retract`):

    Co_t = rank_r(√((t−1)/t)·Co_{t−1} + 1/√t·E_t⊥),   E_t⊥ = E_t − U·Uᵀ·E_t

with U the column space of Co_{t−1}. An example is answered by the expert of the task that it is
taken for, Co_{t−1} + E_t, where the router is sure of it by more than a threshold, else by the
shared branch as it stands. The router is De-LoRA's (`parts.routing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from nlora.methods.parts.lora import ConsolidationName, LoraMethod, LoraSettings

if TYPE_CHECKING:
    from nlora.data.task import Example
    from nlora.methods.base import Route
    from nlora.methods.context import Context


class CodeLoraSettings(LoraSettings):
    """The fold, the router, and when an expert answers."""

    consolidation: ConsolidationName = Field(
        "retract", description=LoraSettings.model_fields["consolidation"].description
    )
    routing: Literal["none", "input", "task"] = Field(
        "input", description=LoraSettings.model_fields["routing"].description
    )
    threshold: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how sure the router is to be of a task for its expert to answer; else the "
        "shared branch does; 0: always, as in the published code with this router",
    )


class CodeLora(LoraMethod):
    """A shared branch that every adapter is folded into, and the adapters themselves."""

    name = "code-lora"
    summary = "experts on a shared adapter that each is folded into, and a router between them"
    paper = "arXiv:2610.08312"
    Settings = CodeLoraSettings
    settings: CodeLoraSettings

    def routes(
        self, ctx: Context, examples: Sequence[Example], named: bool = True
    ) -> list[Route] | None:
        """The task that each input is taken for; its expert answers where that is sure."""
        found = super().routes(ctx, examples, named)
        if found is None:
            return None
        sure = self.settings.threshold
        return [route._replace(own=(route.confidence or 0.0) > sure) for route in found]

    @contextmanager
    def at(self, ctx: Context, stage: int) -> Iterator[None]:
        """The expert: the stage's adapter on the shared branch that it was trained on."""
        from nlora.adapters.lora import Lora

        with ctx.after(stage), ctx.adapter_as(Lora).as_trained():
            yield
