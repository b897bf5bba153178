"""What is used of the libraries although they do not promise it.

`transformers` and `peft` have an upper pin for that reason: raise it, and these tests say what
broke and where it is used.
"""

import ast
import importlib
import inspect
import re
from functools import cache, lru_cache
from pathlib import Path

import accelerate
import peft
import pytest
import torch
import transformers

import nlora
from tests.tiny import model

SOURCE = Path(nlora.__file__).parent

IMPORTED = [
    "peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING",
    "peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING",
    "peft.tuners.lora.Linear",
    "peft.tuners.lora.LoraLayer",
    "peft.tuners.osf.Linear",
    "peft.tuners.tuners_utils.BaseTuner",
    "peft.tuners.tuners_utils.BaseTunerLayer",
    "torch.distributed.distributed_c10d._get_default_store",
    "torch.cpu._is_amx_tile_supported",
    "torch.cpu._is_avx512_bf16_supported",
    "peft.utils.merge_utils.dare_linear",
    "peft.utils.merge_utils.magnitude_prune",
    "peft.utils.merge_utils.ties",
    "peft.utils.constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING",
    "transformers.cache_utils.DynamicLayer",
    "transformers.conversion_mapping.get_checkpoint_conversion_mapping",
    "transformers.integrations.integration_utils.get_reporting_integration_callbacks",
    "transformers.integrations.integration_utils.MLflowCallback",
    "transformers.integrations.integration_utils.TrackioCallback",
    "transformers.integrations.integration_utils.WandbCallback",
    "transformers.integrations.integration_utils.rewrite_logs",
    "transformers.generation.streamers.BaseStreamer",
    "transformers.integrations.sdpa_attention.sdpa_attention_forward",
    "transformers.masking_utils.eager_mask",
    "transformers.pytorch_utils.Conv1D",
    "transformers.trainer_pt_utils.get_length_grouped_indices",
    "transformers.training_args.OptimizerNames",
    "transformers.utils.import_utils.is_flash_attn_2_available",
    "transformers.utils.import_utils.is_flash_attn_3_available",
]
"""Modules and functions below a library's own documented names."""

NOT_OF_LIBRARIES = {"_replace", "_asdict", "_exit", "_fields"}
"""Public, whatever their names look like."""


@cache
def wrapped(kind):
    """A tiny model in PEFT with matrices of 64×32 (`up`) and 32×64 (`down`) adapted."""
    modules = ["up_proj", "down_proj"]
    return peft.get_peft_model(model("llama"), kind(task_type="CAUSAL_LM", target_modules=modules))


def layer(kind, name):
    return wrapped(kind).get_submodule(f"base_model.model.model.layers.0.mlp.{name}_proj")


@lru_cache
def arguments():
    found = transformers.TrainingArguments(use_cpu=True)
    assert found.n_gpu == 0  # which sets `_n_gpu`
    return found


def of_trainer(name):
    """The Trainer reads an attribute that we set."""
    return re.search(rf"self\.{name}\b", inspect.getsource(transformers.Trainer)) is not None


ATTRIBUTES = {
    "_attn_implementation": lambda: model("llama").config._attn_implementation == "sdpa",
    **{
        flag: lambda flag=flag: getattr(model("llama"), flag) is True
        for flag in ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn")
    },
    "_is_distributed_loading_by_transformers": lambda: (
        "_is_distributed_loading_by_transformers"
        in inspect.getsource(importlib.import_module("transformers.distributed.mixin"))
    ),
    "_is_stateful": lambda: transformers.MambaForCausalLM._is_stateful is True,
    # the same for all tensors of one storage
    "_cdata": lambda: (
        (x := torch.zeros(2)).untyped_storage()._cdata == x[1:].untyped_storage()._cdata
    ),
    "_version": lambda: torch.zeros(1)._version == 0,
    "_n_gpu": lambda: arguments()._n_gpu == 0,
    # empty until a process has a state, which asking for it in public would make
    "_shared_state": lambda: (
        accelerate.PartialState()._shared_state is accelerate.PartialState._shared_state
    ),
    # PEFT keeps what is not square of U_h and V_h, and else where U_l and V_l began
    "_osf_U_high": lambda: "default" in layer(peft.OSFConfig, "up")._osf_U_high,
    "_osf_U_low_init": lambda: "default" in layer(peft.OSFConfig, "down")._osf_U_low_init,
    "_osf_V_high": lambda: "default" in layer(peft.OSFConfig, "down")._osf_V_high,
    "_osf_V_low_init": lambda: "default" in layer(peft.OSFConfig, "up")._osf_V_low_init,
    "osf_svd_params": lambda: (
        {*layer(peft.OSFConfig, "up").osf_svd_params["default"]} == {"U_low", "S_low", "V_low"}
    ),
    "effective_rank": lambda: layer(peft.OSFConfig, "up").effective_rank["default"] == 16,
    "targeted_module_names": lambda: (
        "model.layers.0.mlp.up_proj" in wrapped(peft.OSFConfig).base_model.targeted_module_names
    ),
    "fan_in_fan_out": lambda: layer(peft.LoraConfig, "up").fan_in_fan_out is False,
    "lora_dropout": lambda: "default" in layer(peft.LoraConfig, "up").lora_dropout,
    "is_activation_checkpointing": lambda: model("llama").is_activation_checkpointing is False,
    "_get_grad_norm": lambda: of_trainer("_get_grad_norm"),
    "loss_is_scaled_for_ga": lambda: of_trainer("loss_is_scaled_for_ga"),
    "model_accepts_loss_kwargs": lambda: of_trainer("model_accepts_loss_kwargs"),
    "get_optimizer_cls_and_kwargs": lambda: callable(
        transformers.Trainer.get_optimizer_cls_and_kwargs
    ),
    "on_pre_optimizer_step": lambda: "on_pre_optimizer_step" in vars(transformers.TrainerCallback),
}
"""Attributes, each with what we rely on."""


@cache
def sources():
    return {path: path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py"))}


def used_in(name):
    """Files and lines that use a name, for the message."""
    found = [
        f"{path.relative_to(SOURCE.parent.parent)}:{number}"
        for path, text in sources().items()
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(rf"\b{name}\b", line)
    ]
    assert found, f"{name} is used nowhere any more: take it out of this table"
    return ", ".join(found)


def versions():
    libraries = (transformers, peft, torch)
    return ", ".join(f"{library.__name__} {library.__version__}" for library in libraries)


@pytest.mark.parametrize("path", IMPORTED)
def test_what_is_imported_is_there(path):
    module, _, name = path.rpartition(".")
    where = used_in(name)
    try:
        getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{path} is gone ({versions()}): {error}; used in {where}")


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_what_we_rely_on(name):
    where = used_in(name)
    try:
        holds = ATTRIBUTES[name]()
    except (AttributeError, KeyError, TypeError) as error:
        holds, reason = False, repr(error)
    else:
        reason = "it means something else now"
    if not holds:
        pytest.fail(f"{name} has changed ({versions()}): {reason}; used in {where}")


def private_uses(tree):
    """Imports from below a library's top, and attributes with an underscore of other objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            library, _, below = node.module.partition(".")
            if below and library in ("transformers", "peft"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and re.match(r"_(?!_)", node.attr):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not own and node.attr not in NOT_OF_LIBRARIES:
                yield node.attr


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.stem)
def test_every_private_part_that_is_used_is_listed_here(path):
    known = {*IMPORTED, *ATTRIBUTES, *(name.rpartition(".")[2] for name in IMPORTED)}
    unlisted = sorted({*private_uses(ast.parse(sources()[path]))} - known)
    assert not unlisted, f"{path.name} uses {unlisted}: is there a public way? Else list it here"
