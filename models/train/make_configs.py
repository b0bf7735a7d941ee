"""Writes config.json and generation_config.json of both models.

Usage: make_configs.py MODELS_DIR
"""

import json
import os
import sys

SHAPES = {
    "spark": dict(
        hidden_size=256,
        intermediate_size=576,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
    ),
    "spark-mini": dict(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
    ),
}
BOS, EOS, END, PAD = 0, 1, 3, 4


def config(shape):
    """The model's configuration in the form of transformers."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": BOS,
        "eos_token_id": [END, EOS],
        **shape,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 2048,
        "mlp_bias": False,
        "model_type": "llama",
        "pad_token_id": PAD,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.57.0",
        "use_cache": True,
        "vocab_size": 2048,
    }


GENERATION = {
    "bos_token_id": BOS,
    "do_sample": True,
    "eos_token_id": [END, EOS],
    "pad_token_id": PAD,
    "temperature": 0.5,
    "top_k": 40,
    "top_p": 0.9,
    "transformers_version": "4.57.0",
}


def main():
    """Writes the four files."""
    for name, shape in SHAPES.items():
        folder = os.path.join(sys.argv[1], name)
        os.makedirs(folder, exist_ok=True)
        for file, value in (("config.json", config(shape)), ("generation_config.json", GENERATION)):
            with open(os.path.join(folder, file), "w", encoding="utf-8") as f:
                json.dump(value, f, indent=2)
                f.write("\n")


if __name__ == "__main__":
    main()
