"""Which families of models work: a tiny random model of each, made from its own configuration.

    python -m benchmarks.families [NAME …] [--again] [--processes 2] [--limit 120]

Every decoder-only and encoder-decoder family that Transformers knows learns two tasks with `n-lora`
and with `inc-lora` and `routing=input`; a run that was stopped after its first task goes on; then
come `predict`, `export` (loaded again) and `analyze`. Each family has a process of its own. What is
in docs/results/families.jsonl already for these versions is not tried again without `--again`; the
table is written from all of it.
"""

import argparse
import json
import multiprocessing
import os
import re
import tempfile
import textwrap
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "families.jsonl"
TABLE = RESULTS.with_suffix(".md")

MOST_USED = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "gpt2",
    "gpt_neox",
    "opt",
    "bloom",
    "falcon",
    "mixtral",
    "gpt_oss",
    "t5",
    "mt5",
    "bart",
]

NO_TEXT = {
    "reads or writes sound or pictures, not text alone": [
        "audioflamingo3",
        "glmasr",
        "granite_speech",
        "granite_speech_plus",
        "musicflamingo",
        "nemo_speechlm",
        "omniasr",
        "qwen2_audio",
        "qwen3_asr",
        "seamless_m4t",
        "seamless_m4t_v2",
        "vibevoice_asr",
        "voxtral",
        "voxtral_realtime",
        "whisper",
        "musicgen",
        "musicgen_melody",
        "moshi",
        "moss_transcribe_diarize",
        "trocr",
        "git",
        "got_ocr2",
        "fuyu",
        "mllama",
        "emu3",
        "phi4_multimodal",
    ],
    "is a part of another model: it cannot be loaded by itself": [
        "gemma4_assistant",
        "gemma4_unified_assistant",
        "encoder-decoder",
    ],
}


def families() -> list[str]:
    """The names of all families, those with an encoder last."""
    from transformers.models.auto import modeling_auto as auto

    decoders = list(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    both = auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    return decoders + [name for name in both if name not in decoders]


SIZES: list[tuple[str, int]] = [
    (r"(hidden_size|d_model|n_embd|model_dim|emb_dim|embedding_dim|dim|hidden_dim|width|"
     r"embedding_size|hidden_size_global|hidden_size_per_layer_input|lru_width|word_embed_proj_dim|"
     r"decoder_hidden_size|encoder_hidden_size|n_embed|embed_dim|dim_model)", 32),
    (r"(num_hidden_layers|n_layers?|num_layers|\w*coder_layers|num_\w*coder_layers|num_blocks|"
     r"num_\w*coder_hidden_layers)", 2),
    (r"(num_attention_heads|n_heads?|num_heads|\w*coder_attention_heads|"
     r"num_\w*coder_attention_heads|encoder_num_attention_heads|swa_num_attention_heads)", 4),
    (r"(num_key_value_heads|kv_n_heads|num_kv_heads|swa_num_key_value_heads|num_query_groups)", 2),
    (r"(head_dim|d_kv|kv_channels|global_head_dim|swa_head_dim|attention_head_size|"
     r"linear_head_dim)", 8),
    (r"(intermediate_size|ffn_dim|d_ff|n_inner|ffn_hidden_size|\w*coder_ffn_dim|mlp_hidden_size|"
     r"dense_intermediate_size|feed_forward_size|d_inner|inner_dim|dim_ff)", 64),
    (r"(moe_intermediate_size|\w*expert_intermediate_size|expert_ffn_hidden_size|expert_dim|"
     r"moe_\w*intermediate_size|expert_hidden_size)", 16),
    (r"(num_local_experts|num_experts|n_routed_experts|moe_num_experts|zero_expert_num)", 4),
    (r"(num_experts_per_tok(en)?|moe_topk?|moe_top_k|top_k_experts|num_selected_experts|"
     r"num_experts_per_token)", 2),
    (r"(n_group|topk_group|num_expert_group|n_shared_experts|first_k_dense_replace|"
     r"num_nextn_predict_layers|num_dense_layers)", 1),
    (r"(kv_lora_rank|q_lora_rank|o_lora_rank|adapter_rank)", 16),
    (r"(qk_nope_head_dim|qk_rope_head_dim|v_head_dim|index_head_dim)", 8),
    (r"(index_n_heads|index_topk)", 4),
    (r"(linear_num_key_heads|linear_num_value_heads|linear_num_heads)", 2),
    (r"(linear_key_head_dim|linear_value_head_dim)", 8),
    (r"(mamba_num_heads|n_mamba_heads|mamba_n_heads)", 4),
    (r"(mamba_head_dim|mamba_d_head|mamba_headdim)", 16),
    (r"(mamba_d_state|ssm_state_size|state_size|mamba_dt_rank|time_step_rank)", 8),
    (r"(mamba_n_groups|mamba_ngroups|n_groups)", 1),
    (r"(max_position_embeddings|n_positions|max_seq_len|model_max_length|max_source_positions|"
     r"max_target_positions)", 1024),
    (r"(vocab_size|\w*_vocab_size|vocab_size_per_layer_input|n_vocab)", 259),
]  # fmt: skip
"""What a configuration calls its sizes, and what they are made."""

IDS = {
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
}

UNSAID = {
    "head_dim": 8,
    "num_key_value_heads": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_routed_experts": 4,
}
"""Sizes that a published model always says, and a default configuration may not."""

DOTS = {
    "num_key_value_heads": 4,
    "head_dim": 16,
    "swa_num_key_value_heads": 4,
    "swa_num_attention_heads": 4,
}

OWN: dict[str, dict[str, Any]] = {
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "bamba": {"attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    },
    "ctrl": {"dff": 64},
    "dory": {
        "layer_types": ["full_attention", "mlp"] * 3,
        "num_hidden_layers": 6,
        "n_input_layers": 2,
        "n_output_layers": 2,
        "n_recurrent_layers": 2,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "dots3_note": {"text_config": DOTS},
    "dots3_note_text": DOTS,
    "dbrx": {"attn_config": {"clip_qkv": 8.0, "kv_n_heads": 2, "rope_theta": 10000.0}},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention"],
        "shared_intermediate_size": 64,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "led": {"attention_window": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8},
}
"""What a family needs beside the general rules."""

MOST_KINDS = 4
"""Layers of a model that has several kinds, at most."""


def shrunk(values: dict[str, Any], nested: bool = False) -> dict[str, Any]:
    """Arguments that make a configuration with these default values tiny."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and "model_type" in value:
            kept = {"model_type": value["model_type"]} if value["model_type"] else {}
            made[name] = {**kept, **shrunk(value, nested=True)}
        elif name in IDS:
            if value is not None:
                made[name] = IDS[name]
        elif name in UNSAID and value is None:
            made[name] = UNSAID[name]
        elif type(value) is int:
            size = next((s for pattern, s in SIZES if re.fullmatch(pattern, name)), None)
            if size is not None and (value > size or "vocab" in name):
                made[name] = size
    if not nested:
        made |= {name: id for name, id in IDS.items() if name != "bos_token_id"}
    kinds = values.get("layer_types") or values.get("layers_block_type")
    if isinstance(kinds, list) and kinds:
        few = list(dict.fromkeys(kinds))[:MOST_KINDS]
        few = (few * 2)[: max(2, len(few))]
        name = "layer_types" if "layer_types" in values else "layers_block_type"
        made[name] = few
        for count in ("num_hidden_layers", "num_layers", "n_layers"):
            if count in values:
                made[count] = len(few)
        other = values.get("mlp_layer_types")
        if isinstance(other, list):
            mixed = list(dict.fromkeys(other))
            made["mlp_layer_types"] = (mixed * len(few))[: len(few)]
    return made


def tiny_config(family: str) -> Any:
    """A family's own configuration, of few thousand parameters."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[family]
    made = shrunk(kind().to_dict())
    for name, value in OWN.get(family, {}).items():
        inner = made.get(name)
        made[name] = {**inner, **value} if isinstance(inner, dict) else value
    config = kind(**made)
    if config.is_encoder_decoder:
        config.decoder_start_token_id = 0
    return config


def make(family: str, folder: Path) -> int:
    """Write a random model of the family and a tokenizer; its number of parameters."""
    import torch
    from tests.tiny import tokenizer
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.models.auto import modeling_auto as auto

    config = tiny_config(family)
    decoder = family in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    seq2seq = family in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    both = AutoModelForSeq2SeqLM if seq2seq and config.is_encoder_decoder else None
    if not decoder or both:
        both = AutoModelForSeq2SeqLM
    torch.manual_seed(0)
    model = (both or AutoModelForCausalLM).from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer(ends_with_eos=bool(config.is_encoder_decoder)).save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


class Stopped(Exception):
    """The run was stopped on purpose."""


def check(family: str, folder: Path, row: dict[str, Any]) -> None:
    """Do all with one family; `row` tells how far it came."""
    import torch
    from tests import runs
    from tests.runs import Listener

    from nlora.analysis.adapters import read_adapters
    from nlora.analysis.report import analyse
    from nlora.backbones.catalog import find
    from nlora.backbones.load import load
    from nlora.continual.answering import predict
    from nlora.continual.export import export
    from nlora.continual.learning import run
    from nlora.lowrank.supports import Threshold

    row["step"] = "make"
    model = folder / "model"
    row["parameters"] = make(family, model)
    stream = runs.write_stream(folder, "colour", "animal", train=6, test=3)
    settings = {**runs.FAST, "batch_size": 2}

    class Stops(Listener):
        def start(self, title: str, total: int) -> None:
            super().start(title, total)
            if sum("evaluation" not in each for each in self.titles) == 2:
                raise Stopped

    row["step"] = "run"
    ours = runs.config(model, stream, settings, method="n-lora")
    try:
        run(ours, folder / "n-lora", Stops())
    except Stopped:
        row["step"] = "resume"
    else:
        raise AssertionError("the run was not stopped")
    run(ours, folder / "n-lora")
    config = json.loads(
        (folder / "n-lora/stages/001-colour/update/adapter_config.json").read_text()
    )
    row["target_modules"] = config["target_modules"]
    row["step"] = "routing=input"
    routed = runs.config(
        model, stream, {**settings, "consolidation": "none", "routing": "input"}, method="inc-lora"
    )
    run(routed, folder / "routed")
    row["step"] = "predict"
    texts = ["xxx 1", "yyy 2", ""]
    before = [a.answer for a in predict(folder / "n-lora", texts, "colour")]
    predict(folder / "routed", texts)
    row["step"] = "export"
    export(folder / "n-lora", folder / "plain")
    load(find(str(folder / "plain")), torch.float32)
    assert len(before) == len(texts)
    row["step"] = "analyze"
    analyse(read_adapters([str(folder / "n-lora")]), [Threshold.parse("0.1rms")])
    row["step"] = None


def tried(family: str, path: str) -> None:
    """Check a family in this process and write its row."""
    warnings.filterwarnings("ignore")
    row: dict[str, Any] = {"family": family}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NLORA_CACHE"] = folder
        try:
            check(family, Path(folder), row)
            row["works"] = True
        except BaseException as error:
            needs = row["step"] == "make" and isinstance(error, ImportError)
            row["works"] = None if needs else False
            row["reason"] = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
            row["trace"] = traceback.format_exc()
    row["seconds"] = round(time.perf_counter() - started, 1)
    Path(path).write_text(json.dumps(row), encoding="utf-8")


def measure(family: str, limit: float) -> dict[str, Any]:
    """The row of a family, checked in a process of its own for at most `limit` seconds."""
    for reason, names in NO_TEXT.items():
        if family in names:
            return {"family": family, "works": None, "reason": reason}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        process = multiprocessing.get_context("fork").Process(
            target=tried, args=(family, str(path))
        )
        process.start()
        process.join(limit)
        if process.is_alive():
            process.kill()
            process.join()
            return {"family": family, "works": False, "reason": f"not done in {limit:.0f} s"}
        if not path.is_file():
            reason = f"the process ended with status {process.exitcode}"
            return {"family": family, "works": False, "reason": reason}
        return json.loads(path.read_text(encoding="utf-8"))


def write(rows: dict[str, dict[str, Any]], versions: dict[str, str]) -> None:
    """The rows as JSON lines and as a table."""
    order = sorted(rows)
    lines = [json.dumps({k: v for k, v in rows[n].items() if k != "trace"}) for n in order]
    RESULTS.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    asked = [n for n in order if rows[n]["works"] is not None]
    works = [n for n in asked if rows[n]["works"]]
    used = sum(n in works for n in MOST_USED)
    untried = [name for name in families() if name not in rows]
    head = f"""# Families of models

Written by `python -m benchmarks.families`, which says what is tried, with Transformers
{versions["transformers"]} and PEFT {versions["peft"]}, on random models of few thousand parameters.

{len(works)} of {len(asked)} families that read and write text work
({100 * len(works) / max(len(asked), 1):.1f} %), {used} of the {len(MOST_USED)} most used:
{", ".join(MOST_USED)}.
{len(order) - len(asked)} more are no language models of texts alone.

{"Not tried yet: " + ", ".join(untried) + "." if untried else ""}

| family | works | adapted matrices, or the reason |
| --- | --- | --- |
"""
    table = []
    for name in order:
        row = rows[name]
        word = {True: "yes", False: "no", None: "not for text"}[row["works"]]
        targets = row.get("target_modules", [])
        targets = [targets] if isinstance(targets, str) else targets
        last = ", ".join(f"`{t}`" for t in targets) if row["works"] else row["reason"]
        if row.get("step"):
            last = f"at {row['step']}: {last}"
        table.append(f"| {name} | {word} | {last.replace('|', chr(92) + '|')} |\n")
    TABLE.write_text(head + "".join(table), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--again", action="store_true", help="also what is in the table already")
    parser.add_argument("--failed", action="store_true", help="again what failed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120, help="seconds a family may take")
    parser.add_argument("--traces", type=Path, help="a file for the tracebacks of failures")
    asked = parser.parse_args()

    import peft
    import tests.tiny  # noqa: F401
    import transformers

    transformers.utils.logging.set_verbosity_error()
    versions = {"transformers": transformers.__version__, "peft": peft.__version__}
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else ""
    rows = {row["family"]: row for row in map(json.loads, text.splitlines())}

    def wanted(name: str) -> bool:
        new = name not in rows or rows[name].get("versions", versions) != versions
        return asked.again or new or (asked.failed and rows[name]["works"] is False)

    every = asked.names or [*MOST_USED, *(n for n in families() if n not in MOST_USED)]
    names = [name for name in every if asked.names or wanted(name)]
    with ThreadPoolExecutor(asked.processes) as pool:
        for row in pool.map(lambda name: measure(name, asked.limit), names):
            rows[row["family"]] = {**row, "versions": versions}
            if asked.traces and "trace" in row:
                with asked.traces.open("a", encoding="utf-8") as file:
                    file.write(f"=== {row['family']}\n{row['trace']}\n")
            said = "works" if row["works"] else row["reason"]
            print(row["family"], row.get("step") or "", said, flush=True)
            write(rows, versions)


if __name__ == "__main__":
    main()
