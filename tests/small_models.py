"""Small random models of many families, made on the spot."""

import torch
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    FalconMambaConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    JambaConfig,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)

from evotext.models.character_tokenizer import character_tokenizer
from evotext.models.chat import ChatFormat
from evotext.models.language_model import LanguageModel

VOCABULARY = 100
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_ROPE = _SHAPE | {"intermediate_size": 48, "num_key_value_heads": 2}
_ENDS = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 3}

CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_ROPE, **_ENDS),
    "qwen2": Qwen2Config(**_ROPE, **_ENDS),
    "qwen3": Qwen3Config(**_ROPE, **_ENDS, head_dim=8),
    "mistral": MistralConfig(**_ROPE, **_ENDS, sliding_window=None),
    "gemma2": Gemma2Config(**_ROPE, **_ENDS, head_dim=8, sliding_window=128),
    "gemma3": Gemma3TextConfig(**_ROPE, **_ENDS, head_dim=8, sliding_window=128),
    "phi3": Phi3Config(**_ROPE, **_ENDS),
    "mixtral": MixtralConfig(**_ROPE, **_ENDS, num_local_experts=4),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, **_ENDS),
    "gpt_neox": GPTNeoXConfig(**_SHAPE, **_ENDS, intermediate_size=48),
    "opt": OPTConfig(**_SHAPE, **_ENDS, ffn_dim=48, word_embed_proj_dim=32),
}

# Families with layers that keep states of fixed size, alone or beside attention.
_STATES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2} | _ENDS
_HEADS = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2, "mamba_d_state": 4, "mamba_chunk_size": 4}
_DELTA = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
RECURRENT: dict[str, PreTrainedConfig] = {
    "mamba": MambaConfig(**_STATES, state_size=4, use_bias=True),
    "mamba2": Mamba2Config(**_STATES, state_size=4, num_heads=8, head_dim=8, n_groups=2, chunk_size=4),
    "falcon_mamba": FalconMambaConfig(**_STATES, state_size=4),
    "jamba": JambaConfig(
        **_ROPE,
        **_ENDS,
        num_experts=1,
        num_experts_per_tok=1,
        attn_layer_period=2,
        attn_layer_offset=1,
        mamba_d_state=4,
    ),
    "bamba": BambaConfig(**_ROPE, **_ENDS, **_HEADS, attn_layer_indices=[1]),
    "lfm2": Lfm2Config(**_ROPE, **_ENDS, full_attn_idxs=[1], block_auto_adjust_ff_dim=False),
    "qwen3_next": Qwen3NextConfig(
        **_ROPE,
        **_ENDS,
        **_DELTA,
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        mlp_only_layers=[0, 1],
    ),
}


def small_network(family: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> PreTrainedModel:
    """A random network of this family, in evaluation mode; weights large enough to make logits differ clearly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config((CONFIGS | RECURRENT)[family])
        if family == "mixtral":  # the grouped matrix product has no float64
            network.set_experts_implementation("eager")
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(std=0.3)
    return network.to(dtype).eval()


def small_model(family: str = "llama", dtype: torch.dtype = torch.float64, seed: int = 0) -> LanguageModel:
    """A random model with the character tokenizer."""
    tokenizer = character_tokenizer()
    return LanguageModel(
        name=family,
        network=small_network(family, dtype, seed),
        tokenizer=tokenizer,
        chat=ChatFormat(tokenizer, [tokenizer.eos_token_id]),
        context_length=128,
    )
