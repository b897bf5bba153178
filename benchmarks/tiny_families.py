"""A tiny random model of any family that Transformers knows, by the family's own configuration."""

import re
from pathlib import Path
from typing import Any

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

QWEN4 = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
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
    "qwen4_exp": {"text_config": QWEN4},
    "qwen4_exp_text": QWEN4,
    "dots3_note": {
        "text_config": DOTS,
        "vision_config": {
            "mlp_layer_types": ["dense", "dense"],
            "adapter_in_dim": 32,
            "adapter_out_dim": 32,
        },
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
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
