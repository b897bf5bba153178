"""What a plan's model is built of: the base model, the adapter in it, the encoder of prompts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nlora import processes
from nlora.adapters.base import Adapter
from nlora.adapters.registry import adapter
from nlora.backbones.load import Backbone, embedding_rows, load
from nlora.backbones.structure import base_model, learned_positions
from nlora.backbones.targets import choose
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import TaskData
from nlora.data.writable import check_readable, check_writable
from nlora.errors import NloraError
from nlora.evaluation.own_metrics import try_out
from nlora.fast.packing import why_not_packed
from nlora.fast.prefix import heeds_padding
from nlora.plan.resolve import Plan
from nlora.store.directory import ModelDirectory
from nlora.store.reading import read_json


def load_base(plan: Plan, directory: ModelDirectory, fp32: bool) -> tuple[Plan, Backbone]:
    """The plan's base model, and the plan as it is then.

    With `fp32` all of it is in fp32, whatever it was trained in. Raises NloraError if it cannot be
    loaded, or if its weights are quantised and the plan's adapter changes them.
    """
    quantization = plan.run.quantization
    if quantization != "none":
        check_frozen(plan, quantization)
    if not fp32:
        dtype, sharded = weights_dtype(plan), processes.count() > 1 and _sharded(plan)
        return plan, load(
            plan.base,
            dtype,
            quantization=quantization,
            sharded=sharded,
            attention=plan.run.attention,
        )
    backbone = load(plan.base, torch.float32 if quantization != "none" else weights_dtype(plan))
    if backbone.quantized is not None:
        raise NloraError(
            f"the base model is stored quantised ({backbone.quantized}), and the updates "
            "cannot be merged into such weights; use it with its adapters, which are PEFT's: "
            f"{directory.path}/stages/*/update"
        )
    # After loading: the base that was trained on may have been rounded to bf16.
    backbone.model.float()
    run = plan.run.model_copy(update={"precision": "fp32", "quantization": "none"})
    return replace(plan, run=run), backbone


def stored_targets(directory: ModelDirectory) -> list[str] | str | None:
    """The matrices that a directory's last update adapts, if it is PEFT's LoRA.

    Another version may choose others by default than the one that the directory began with.
    """
    paths = directory.update_paths()
    file = paths[-1] / "adapter_config.json" if paths else None
    if file is None or not file.is_file():
        return None
    stored = read_json(file)
    return stored.get("target_modules") if stored.get("peft_type") == "LORA" else None


def _still_chosen(model: Any, begun_with: list[str] | str) -> bool:
    """Whether the model's structure still says what it said when its directory began."""
    try:
        found = choose(model).modules
    except NloraError:
        return False
    return begun_with == found if isinstance(begun_with, str) else set(begun_with) == set(found)


def make_adapter(
    plan: Plan, backbone: Backbone, begun_with: list[str] | str | None = None
) -> Adapter:
    """The adapter that the plan's method asks for, in the backbone.

    `begun_with` are the matrices of earlier updates, which stay where the settings name none.
    """
    kind = adapter(plan.method.adapter)
    run = plan.run
    check_frozen(plan, backbone.quantized)
    asked = run.target_modules is not None or kind.name != "lora"
    if not asked and begun_with is not None and not _still_chosen(backbone.model, begun_with):
        run = run.model_copy(update={"target_modules": begun_with})
    made = kind.build(backbone.model, run, **plan.method.adapter_options())

    def base_weights() -> dict[str, Tensor]:
        return dict(load(plan.base, weights_dtype(plan)).model.named_parameters())

    made.base_weights = base_weights
    return made


def _sharded(plan: Plan) -> bool:
    """Whether processes share the base model out. Raises NloraError where that cannot be."""
    run, kind = plan.run, adapter(plan.method.adapter)
    if run.sharding == "none":
        return False
    reasons = {
        f"adapter '{kind.name}' is not LoRA": kind.name != "lora",
        f"start={run.start} is made from the base model's weights": run.start != "default",
        f"quantised weights ({run.quantization}) are not shared out": run.quantization != "none",
        f"{plan.config.method} writes texts in its steps, which takes other passes in each "
        "process": plan.method.writes_in_steps,
    }
    for reason, holds in reasons.items():
        if holds:
            raise NloraError(f"sharding=fsdp: {reason}; leave one of the two out")
    return True


def check_frozen(plan: Plan, quantized: str | None) -> None:
    """Raise NloraError if the plan's adapter would change a base model that is quantised so."""
    kind = adapter(plan.method.adapter)
    if quantized is not None and not kind.can.quantized:
        raise NloraError(
            f"adapter '{kind.name}' changes the base model's weights, which are quantised "
            f"({quantized}); use LoRA adapters"
        )


def weights_dtype(plan: Plan) -> torch.dtype:
    """In what the model is loaded: fp32 also where its own weights are trained.

    With `precision=bf16` training is then mixed.
    """
    trained = adapter(plan.method.adapter).needs_fp32
    return torch.float32 if plan.run.precision == "fp32" or trained else torch.bfloat16


def make_encoder(plan: Plan, backbone: Backbone) -> Encoder:
    """The encoder for the plan's prompts and the backbone's tokenizer.

    Prompts leave room for an answer where the model's positions end. Raises NloraError if there is
    none for a prompt.
    """
    run = plan.run
    return Encoder(
        backbone.tokenizer,
        Prompter(run.prompt, run.chat, backbone.tokenizer),
        backbone.encoder_decoder,
        _longest_prompt(plan, backbone),
        run.max_text_tokens,
        embedding_rows(backbone.model),
    )


def _longest_prompt(plan: Plan, backbone: Backbone) -> int:
    """max_length, or what the model's positions leave for a prompt beside its answer."""
    run, positions = plan.run, learned_positions(backbone.model)
    if positions is None:
        return run.max_length
    beside = soft_tokens(plan)
    room = positions - beside - (0 if backbone.encoder_decoder else run.max_new_tokens)
    if room <= 0:
        soft = f", beside {beside} vectors of soft prompts," if beside else ""
        raise NloraError(
            f"the model has {positions} positions, and max_new_tokens ({run.max_new_tokens}){soft} "
            "leaves none for a prompt; set a smaller max_new_tokens"
        )
    return min(run.max_length, room)


def soft_tokens(plan: Plan) -> int:
    """How many vectors of soft prompts are read beside a text after the plan's last stage."""
    options = plan.method.adapter_options()
    return adapter(plan.method.adapter).soft_tokens(len(plan.stages()), **options)


def check_metrics(plan: Plan, tell: Callable[[str], object]) -> None:
    """Raises NloraError for a metric of one's own that fails."""
    for data in plan.stream:
        try_out(plan.method.metric(data.task), data.task, data.test, tell)


def check_packing(plan: Plan, model: Any) -> None:
    """Raise NloraError if examples are to share rows and cannot, in this model with its adapter."""
    if not plan.run.packing:
        return
    method = plan.method
    reason = why_not_packed(model)
    if method.needs_covariances or method.needs_magnitudes:
        reason = f"{method.name} measures what layers read, row by row"
    if reason is not None:
        raise NloraError(f"packing: {reason}; leave packing out")


def check_tasks(
    plan: Plan,
    backbone: Backbone,
    encoder: Encoder,
    tasks: Sequence[TaskData],
    tell: Callable[[str], object],
) -> None:
    """Raises NloraError for what of the tasks this model cannot read, write or hold."""
    check_writable(encoder, tasks, tell)
    check_readable(encoder, tasks, plan.run.max_new_tokens, tell)
    _check_positions(plan, backbone, encoder, tasks, tell)
    _tell_of_padding(plan, backbone, tell)


def _tell_of_padding(plan: Plan, backbone: Backbone, tell: Callable[[str], object]) -> None:
    """Tell of a decoder-only model whose rows are not answered alike in a batch and alone."""
    base: Any = base_model(backbone.model)
    if base.config.is_encoder_decoder or base.device.type == "meta":
        return
    if max(plan.run.batch_size, plan.run.eval_tokens) > 1 and not heeds_padding(base):
        tell(
            f"{type(base).__name__} does not tell padding from text, so that a batch changes the "
            "answers to its shorter rows; batch_size=1 (with accumulation) and eval_tokens=1 read "
            "each row alone"
        )


def _check_positions(
    plan: Plan,
    backbone: Backbone,
    encoder: Encoder,
    tasks: Sequence[TaskData],
    tell: Callable[[str], object],
) -> None:
    """Raises NloraError where an answer to be learned ends beyond the model's last position.

    That prompts are shorter than max_length for it is told.
    """
    positions = learned_positions(backbone.model)
    if positions is None:
        return
    beside = soft_tokens(plan)
    also = f", {beside} vectors of soft prompts" if beside else ""
    if encoder.max_length < plan.run.max_length:
        tell(
            f"prompts have {encoder.max_length} tokens at most, not {plan.run.max_length} "
            f"(max_length): the model has {positions} positions, for prompt{also} and answer"
        )
    answers = {(data.task, e.label) for data in tasks for e in data.train}
    answers |= {(data.task, label) for data in tasks for label in data.task.labels or ()}
    for task, answer in sorted(answers, key=lambda pair: (pair[0].name, pair[1])):
        length = len(encoder.answer_ids(answer, task.chat))
        room = positions if backbone.encoder_decoder else positions - beside
        if length + (0 if backbone.encoder_decoder else encoder.max_length) > room:
            fits = "" if length >= room else f"; set max_length={room - length} or less"
            raise NloraError(
                f"task '{task.name}': an answer of {length} tokens is too long for the "
                f"model, which has {positions} positions for prompt{also} and answer{fits}"
            )
