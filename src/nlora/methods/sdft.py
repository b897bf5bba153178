"""SDFT: the model that has the right answer in its prompt teaches the one that has not.

"Self-Distillation Enables Continual Learning" (arXiv:2601.19897): self-distillation fine-tuning.
For an example with text x the model itself answers, y ~ p_θ(· | x), and with c the right answer
shown in the prompt

    L = mean over tokens t of y of KL( p_θ(· | x, y_<t) ‖ p_φ(· | x, c, y_<t) )
    φ ← α·θ + (1 − α)·φ after every step, φ = θ when a task begins

the divergence over the whole vocabulary, the other way round (KL(p_φ ‖ p_θ)) in the published code:
`divergence`. What is learned is learned on what the model itself would
say, which is what keeps it from forgetting. It needs a model that makes use of an answer in its
prompt; each step writes answers and reads them twice, once as the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nlora.adapters.settings import Count
from nlora.data.encode import Encoded
from nlora.errors import NloraError
from nlora.methods.parts.lora import AnyAdapter, LoraMethod, LoraSettings, LoraState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from nlora.data.task import Example
    from nlora.methods.context import Batch, Context

SHOWN = "Here is the right answer to what follows: {answer}\nGive it in your own words.\n\n{text}"


class SdftSettings(LoraSettings):
    """What is trained, and who teaches."""

    adapter: AnyAdapter = Field("full", description="what is trained")
    teacher_rate: float = Field(
        0.01, ge=0, le=1, description="α, how far the teacher goes towards the model after a step"
    )
    divergence: Literal["reverse", "forward"] = Field(
        "reverse",
        description="KL(model ‖ teacher), as the paper has it, or KL(teacher ‖ model), as its code",
    )
    temperature: float = Field(1.0, ge=1e-4, description="at which the model writes its answers")
    answer_tokens: Count | None = Field(
        None,
        description="tokens that it writes, at most (null: as many as the longest answer has)",
    )


@dataclass
class SdftState(LoraState):
    """The teacher, while a stage is trained."""

    teacher: dict[str, Tensor] = field(default_factory=dict)
    """φ by trained parameter."""


class Sdft(LoraMethod):
    """Train on the model's own answers, towards those that it gives with the right one in view."""

    name = "sdft"
    summary = "the model learns, on its own answers, what it would say with the right one in view"
    paper = "arXiv:2601.19897"
    continues = True
    writes_in_steps = True
    Settings = SdftSettings
    State = SdftState
    settings: SdftSettings
    state: SdftState

    @property
    def extra_passes(self) -> float:
        """What is written, and the teacher's."""
        return 2.0

    def check(self) -> None:
        """The task's loss is its own, so what others make of it would do nothing."""
        super().check()
        for name, wanted in (("loss", "among-labels"), ("rehearsal", "soft")):
            if getattr(self.settings, name) == wanted:
                raise NloraError(
                    f"setting '{name}': {self.name} learns its own answers, for which {wanted} "
                    "means nothing"
                )

    def begin(self, ctx: Context) -> None:
        """The teacher is the model as the task begins."""
        from nlora.adapters.base import snapshot

        super().begin(ctx)
        if any(data.task.chat for data in ctx.stage.tasks):
            raise NloraError(f"{self.name} shows the right answer in the prompt, which chats lack")
        named = ctx.adapter.trained()
        self.state.teacher = dict(zip(named, snapshot(named.values()), strict=True))

    def loss(self, ctx: Context, batch: Batch) -> dict[str, Tensor]:
        """The divergence on answers of the model's own."""
        import torch

        from nlora.adapters.base import swapped
        from nlora.backbones.states import evaluating
        from nlora.data.batches import IGNORED

        examples = [ctx.examples[row] for row in batch["index"].tolist()]
        said = _batch(ctx, rows := self._answers(ctx, examples))
        logits, _ = ctx.logits(said)
        trained = ctx.adapter.trained()
        values = [self.state.teacher[name].to(p.device) for name, p in trained.items()]
        model = ctx.network or ctx.model
        with torch.no_grad(), swapped(trained.values(), values), evaluating(model):
            taught, _ = ctx.logits(_batch(ctx, self._shown(ctx, examples, rows)))
        forward = self.settings.divergence == "forward"
        each = divergence(taught, logits) if forward else divergence(logits, taught)
        of_rows = each.split((said["labels"] != IGNORED).sum(1).tolist())
        mean = torch.stack([row.mean() for row in of_rows]).mean()
        tokens = (batch["labels"] != IGNORED).sum()  # the micro-batch's share of the step
        return {"task": mean * tokens / ctx.tokens}

    def after_step(self, ctx: Context) -> None:
        """The teacher goes on."""
        for name, parameter in ctx.adapter.trained().items():
            known = self.state.teacher[name].to(parameter.device)
            self.state.teacher[name] = known.lerp(parameter.detach(), self.settings.teacher_rate)

    def end(self, ctx: Context) -> None:
        """The next task has a teacher of its own."""
        super().end(ctx)
        self.state.teacher = {}

    def _answers(self, ctx: Context, examples: Sequence[Example]) -> list[Encoded]:
        """The examples with answers of the model's own, token by token as it wrote them."""
        longest = max(len(row.answer) for row in ctx.encoded)
        asked = ctx.encoder.prompts(examples)
        answers = ctx.generated(
            [ids for ids, _ in asked],
            max_new_tokens=self.settings.answer_tokens or longest,
            do_sample=True,
            temperature=self.settings.temperature,
        )
        end = ctx.encoder.end()
        return [
            Encoded(ids, [*said, end], cut) for (ids, cut), said in zip(asked, answers, strict=True)
        ]

    def _shown(
        self, ctx: Context, examples: Sequence[Example], said: Sequence[Encoded]
    ) -> list[Encoded]:
        """The same answers, after prompts that have the right one in view."""
        asked = [
            replace(e, text=SHOWN.format(answer=e.label.strip(), text=e.text)) for e in examples
        ]
        prompts = ctx.encoder.prompts(asked)
        return [replace(row, prompt=ids) for row, (ids, _) in zip(said, prompts, strict=True)]


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(p ‖ p_other) at each token, (n,), of logits (n, vocabulary)."""
    own, other = logits.float().log_softmax(-1), others.float().log_softmax(-1)
    return (own.exp() * (own - other)).sum(-1)


def _batch(ctx: Context, rows: Sequence[Encoded]) -> dict[str, Any]:
    from nlora.data.batches import Collator, on_device

    encoder = ctx.encoder
    collate = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder)
    return on_device(collate(rows), ctx.model.device)  # type: ignore[arg-type]
