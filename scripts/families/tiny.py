"""A tiny configuration of every family of transformers that generates text.

A family's own defaults are shrunk by what its numbers are called, so that a family which is new with the next version of
transformers mostly needs nothing here. Lists with an entry for each layer keep one entry of each kind.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY, CONTEXT, WIDTH = 100, 128, 32
MOST_LAYERS = 4

_CALLED: dict[int, str] = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size",
    CONTEXT: "max_position_embeddings n_positions max_seq_len n_ctx max_target_positions context_length model_max_length "
    "sliding_window sliding_window_size attention_window_size",
    WIDTH: "hidden_size d_model n_embd emb_dim embedding_size embedding_dim input_embedding_size output_embedding_size "
    "word_embed_proj_dim attention_hidden_size backbone_hidden_size lru_width rel_extent mamba_headdim",
    64: "mamba_d_ssm",
    48: "intermediate_size decoder_ffn_dim encoder_ffn_dim ffn_dim dff dim_ff d_inner ffn_hidden_size feed_forward_size "
    "dense_intermediate_size intermediate_size_mlp",
    24: "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size "
    "shared_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size",
    16: "qk_head_dim index_head_dim max_source_positions router_hidden_size num_centroids",
    10: "pronunciation_vocab_size shape_vocab_size",
    8: "head_dim attention_head_dim attention_head_size d_head dim_head kv_channels swa_head_dim kv_lora_rank q_lora_rank "
    "o_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim linear_head_dim linear_key_head_dim linear_value_head_dim "
    "mamba_n_heads mamba_d_head mamba_num_heads mamba_head_dim rotary_dim hc_lowrank prompt_mid_dim "
    "pronunciation_embed_dim shape_embed_dim hidden_size_per_layer_input",
    4: "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads encoder_attention_heads "
    "num_decoder_attention_heads num_encoder_attention_heads swa_num_attention_heads index_n_heads linear_num_heads "
    "linear_num_value_heads num_experts num_local_experts n_routed_experts moe_num_experts mamba_d_state "
    "mamba_chunk_size mamba_dt_rank chunk_size state_size ssm_state_size time_step_rank conv_kernel adapter_rank "
    "gated_norm_rank laurel_rank d_rel",
    3: "eos_token_id",
    2: "num_hidden_layers n_layer n_layers num_layers num_blocks decoder_layers encoder_layers num_decoder_layers "
    "num_encoder_layers num_key_value_heads num_kv_heads swa_num_key_value_heads num_experts_per_tok "
    "num_experts_per_token moe_topk moe_k o_groups linear_num_key_heads mamba_n_groups n_groups n_mamba_heads "
    "mamba_ngroups",
    1: "first_k_dense_replace num_dense_layers n_group num_expert_group topk_group n_shared_experts num_shared_experts "
    "moe_num_shared_experts zero_expert_num num_mem_blocks bos_token_id",
    0: "pad_token_id",
}
_SMALL = {name: size for size, names in _CALLED.items() for name in names.split()}
_MAY_BE_UNSET = {"bos_token_id", "eos_token_id", "pad_token_id", "num_key_value_heads", "head_dim"}
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")

_DECODERS = (
    "bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert roberta "
    "roberta-prelayernorm roc_bert roformer xlm-roberta xlm-roberta-xl xmod reformer xlm"
)
_ONE_KEY_A_HEAD = (
    "axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa kimi_linear longcat_flash "
    "minicpm3 youtu dots3_note_text"
)
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_PAIR = ["linear_attention", "full_attention"]
# transformers' step of a single token does not hold dt above its least value, as its scan of a prompt does.
_NO_LEAST_STEP = {"time_step_min": 1e-30, "time_step_limit": [0.0, float("inf")]}
# Further settings of a family: sizes that have to fit each other, and fields without a default.
_BESIDES: dict[str, dict[str, Any]] = (
    {family: {"is_decoder": True} for family in _DECODERS.split()}
    | {family: {"num_key_value_heads": 4} for family in _ONE_KEY_A_HEAD.split()}
    | {
        "bamba": {"attn_layer_indices": [1]},
        "blt": {"encoder_hash_byte_group_vocab": 50},
        "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}},
        "dbrx": {
            "rope_parameters": _ROPE,
            "ffn_config": {"hidden_size": WIDTH, "ffn_hidden_size": 48, "moe_top_k": 2},
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        },
        "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2},
        "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
        "dots3_note_text": {"num_key_value_heads": 4, "head_dim": 16, "per_layer_config": None},
        "gemma3n_text": {
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
            "intermediate_size": [48] * 4,
        },
        "granitemoehybrid": {"layer_types": _PAIR},
        "hrm_text": {"num_hidden_layers": 1, "num_layers_per_stack": None},
        "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
        "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
        "mamba2": {"num_heads": 8, "head_dim": 8},
        "nemotron_h": _NO_LEAST_STEP,
        "qwen4_exp_text": {
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 8,
            "indexer_budget": 8,
            "indexer_compress_ratio": 2,
        },
        "recurrent_gemma": {"num_hidden_layers": 3},
        "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "local"]},
        "xlm": {"is_decoder": True, "causal": True},
        "xlstm": {"num_heads": 2},
        "xmod": {"is_decoder": True, "default_language": "en_XX"},
        "zamba": {
            "num_hidden_layers": 4,
            "layers_block_type": ["linear_attention", "hybrid"] * 2,
            "attention_hidden_size": 64,
            "attention_head_dim": 16,
        },
        "zamba2": {"attention_hidden_size": 64, "attention_head_dim": 16} | _NO_LEAST_STEP,
        "zaya": {"num_experts_per_tok": 1},
    }
)
# Families that compute in more ways than one, by what their configuration says.
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon (alibi)": ("falcon", {"alibi": True, "new_decoder_architecture": False}),
    "bert (encoder)": ("bert", {"is_decoder": False}),
}


def families() -> list[str]:
    """Return every family that `AutoModelForCausalLM` knows, and variants of some."""
    return sorted([*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *_VARIANTS])


def tiny_config(family: str) -> PreTrainedConfig:
    """Return a configuration of this family with some ten thousand weights.

    Raise whatever transformers raises for a configuration that it does not build.
    """
    name, changes = _VARIANTS.get(family, (family, {}))
    return _shrunk(CONFIG_MAPPING[name], changes)


def _shrunk(kind: type[PreTrainedConfig], changes: Mapping[str, Any]) -> PreTrainedConfig:
    besides = _BESIDES.get(kind.model_type, {})
    try:
        default = kind()
    except (ValueError, StrictDataclassError):  # it has no default of its own
        return kind(**besides)
    own = default.to_dict()
    small: dict[str, Any] = {
        name: size
        for name, size in _SMALL.items()
        if name in own and (isinstance(own[name], int | float) or (own[name] is None and name in _MAY_BE_UNSET))
    }
    if isinstance(own.get("eos_token_id"), list):
        small["eos_token_id"] = _SMALL["eos_token_id"]
    count = next((own[name] for name in _LAYERS if isinstance(own.get(name), int)), None)
    by_layer = {name: value for name, value in own.items() if isinstance(value, list) and len(value) == count}
    kinds = {name: list({str(entry): entry for entry in value}.values()) for name, value in by_layer.items()}
    if kinds:
        layers = max(2, min(MOST_LAYERS, max(map(len, kinds.values()))))
        small |= {name: layers for name in _LAYERS if name in small}
        small |= {name: (entries + entries[-1:] * layers)[:layers] for name, entries in kinds.items()}
    for name in kind.sub_configs:
        within = getattr(default, name, None)
        if isinstance(within, PreTrainedConfig):
            with suppress(
                ValueError, StrictDataclassError
            ):  # one that does not let itself be shrunk stays: no text goes through it
                small[name] = _shrunk(type(within), {}).to_dict()
    return kind(**(small | besides | dict(changes)))
