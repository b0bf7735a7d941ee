#!/usr/bin/env python3
"""Makes goldens.json: what transformers computes for small models of the forms that the shared
test data lacks.

Versions used: Python 3.11.7, transformers 5.23.0, torch 2.15.0 (CPU, float32, eager attention).
Run: python make_goldens.py > goldens.json

A model is its config.json as written here, and weights that are a function of their tensor's name
(see `weights`), so that no weight is stored: the test computes the same numbers. Tensor names are
those that save_pretrained writes, or, where a case says so, those of the model in memory.
"""

import json
import os
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

PROMPT_LEN = 80


def weights(name, shape, norm_is_offset):
    """FNV-1a of the name, then murmur3's finalizer of hash + index * golden ratio; 24 bits each."""
    seed = 2166136261
    for byte in name.encode():
        seed = ((seed ^ byte) * 16777619) & 0xFFFFFFFF
    x = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    v = (x >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-25) - np.float32(0.25)
    if "norm" in name and not norm_is_offset:
        v = np.float32(1.0) + v
    return v.astype(np.float32).reshape(shape)


BASE = dict(
    vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5,
    bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False, hidden_act="silu",
)


def config(architecture, model_type, drop=(), **changes):
    fields = {**BASE, **changes, "architectures": [architecture], "model_type": model_type}
    return {name: value for name, value in fields.items() if name not in drop}


def llama(**changes):
    return config("LlamaForCausalLM", "llama", **changes)


def qwen2(**changes):
    return config("Qwen2ForCausalLM", "qwen2", **changes)


def qwen3(**changes):
    return config("Qwen3ForCausalLM", "qwen3", **{"head_dim": 12, **changes})


def phi3(**changes):
    return config("Phi3ForCausalLM", "phi3", **changes)


def smollm3(**changes):
    return config("SmolLM3ForCausalLM", "smollm3", **{"num_hidden_layers": 4, **changes})


def gemma(version, **changes):
    name, kind = {2: ("Gemma2ForCausalLM", "gemma2"), 3: ("Gemma3ForCausalLM", "gemma3_text")}[version]
    fields = {"head_dim": 12, "query_pre_attn_scalar": 10, "num_hidden_layers": 4,
              "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 16,
              "tie_word_embeddings": True, **changes}
    return config(name, kind, drop=("hidden_act",), **fields)


def phi_divisors(num_pairs):
    return {"short_factor": [1.0 + 0.1 * i for i in range(num_pairs)],
            "long_factor": [1.5 + 0.7 * i for i in range(num_pairs)]}


def wrapper(architecture, model_type, text, **changes):
    vision = {
        "gemma3": dict(model_type="siglip_vision_model", hidden_size=8, intermediate_size=8,
                       num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14),
        "mistral3": dict(model_type="pixtral", hidden_size=8, intermediate_size=8, head_dim=4,
                         num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14),
    }[model_type]
    outer = {"architectures": [architecture], "model_type": model_type, "text_config": text,
             "vision_config": vision, "torch_dtype": "float32"}
    return {**outer, **changes}


def gemma3_text():
    text = gemma(3, rope_scaling={"factor": 8.0, "rope_type": "linear"}, num_hidden_layers=3,
                 sliding_window_pattern=3)
    for left_out in ("architectures", "tie_word_embeddings", "bos_token_id", "eos_token_id"):
        del text[left_out]
    return text


GEMMA3_WRAPPER = dict(mm_tokens_per_image=4, boi_token_index=45, eoi_token_index=46,
                      image_token_index=47, bos_token_id=1, eos_token_id=[2, 3])
MOE = dict(num_experts_per_tok=2, moe_intermediate_size=12, num_experts=5, head_dim=12)

# name: (config, max_model_len, whether tensor names are those in memory)
CASES = {
    "llama-linear": (llama(rope_theta=5e3, rope_scaling={"type": "linear", "factor": 2.5}), 128, False),
    "llama-dynamic": (llama(max_position_embeddings=32, rope_scaling={"type": "dynamic", "factor": 4.0}),
                      PROMPT_LEN, False),
    "llama-yarn": (llama(rope_parameters={
        "rope_type": "yarn", "rope_theta": 2e4, "factor": 4.0,
        "original_max_position_embeddings": 32}), 128, False),
    "llama-yarn-mscale": (llama(rope_scaling={
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 4.0,
        "beta_slow": 0.5, "mscale": 1.2, "mscale_all_dim": 0.7, "truncate": False}), 128, False),
    "llama-longrope": (llama(rope_scaling={
        "rope_type": "longrope", "original_max_position_embeddings": 32, "factor": 3.0,
        **phi_divisors(4)}), 128, False),
    "llama-biases": (llama(attention_bias=True, mlp_bias=True, head_dim=12, num_key_value_heads=1,
                           tie_word_embeddings=True), 128, False),
    "mistral-no-window": (config("MistralForCausalLM", "mistral", sliding_window=None, head_dim=12),
                          128, False),
    "mixtral-fused-experts": (config("MixtralForCausalLM", "mixtral", num_local_experts=5,
                                     num_experts_per_tok=3, sliding_window=16,
                                     drop=("rms_norm_eps",)), 128, True),
    "qwen2-window": (qwen2(num_hidden_layers=3, use_sliding_window=True, sliding_window=16,
                           max_window_layers=2), 128, False),
    "qwen2-no-window": (qwen2(use_sliding_window=False, sliding_window=16, max_window_layers=0,
                              tie_word_embeddings=True), 128, False),
    "qwen2-yarn": (qwen2(rope_theta=1e6, rope_scaling={
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}), 128, False),
    "qwen3-tied-biases": (qwen3(attention_bias=True, tie_word_embeddings=True), 128, False),
    "qwen3-layer-types": (qwen3(use_sliding_window=True, sliding_window=16,
                                layer_types=["sliding_attention", "full_attention"]), 128, False),
    "qwen3-moe-fused-experts": (config("Qwen3MoeForCausalLM", "qwen3_moe", num_hidden_layers=3,
                                       norm_topk_prob=True, **MOE), 128, True),
    "qwen3-moe-some-dense": (config("Qwen3MoeForCausalLM", "qwen3_moe", num_hidden_layers=4,
                                    decoder_sparse_step=2, mlp_only_layers=[3], use_sliding_window=True,
                                    sliding_window=16, attention_bias=True, **MOE), 128, False),
    "phi3-longrope-short": (phi3(original_max_position_embeddings=PROMPT_LEN, rope_scaling={
        "type": "longrope", **phi_divisors(4)}), PROMPT_LEN, False),
    "phi3-longrope-long": (phi3(original_max_position_embeddings=32, sliding_window=40, rope_scaling={
        "type": "su", "original_max_position_embeddings": 32, **phi_divisors(4)}, drop=("rms_norm_eps",)), 128, False),
    "phi4-mini": (phi3(original_max_position_embeddings=32, partial_rotary_factor=0.75,
                       tie_word_embeddings=True, rope_scaling={"type": "longrope", **phi_divisors(3)}),
                  128, False),
    "gemma2-biases": (gemma(2, attention_bias=True, final_logit_softcapping=None,
                            attn_logit_softcapping=2.0), 128, False),
    "gemma2-layer-types": (gemma(2, final_logit_softcapping=3.0, layer_types=[
        "full_attention", "sliding_attention", "sliding_attention", "full_attention"]), 128, False),
    "gemma3-new-form": (gemma(3, _sliding_window_pattern=6, final_logit_softcapping=3.0, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}), 128, False),
    "gemma3-old-form": (gemma(3, rope_theta=1e5, rope_local_base_freq=500.0, sliding_window_pattern=2,
                              rope_scaling={"rope_type": "linear", "factor": 4.0}), 128, False),
    "gemma3-multimodal": (wrapper("Gemma3ForConditionalGeneration", "gemma3", gemma3_text(),
                                  **GEMMA3_WRAPPER), 128, False),
    "gemma3-multimodal-new-names": (wrapper("Gemma3ForConditionalGeneration", "gemma3", gemma3_text(),
                                            **GEMMA3_WRAPPER), 128, True),
    "mistral3-multimodal": (wrapper("Mistral3ForConditionalGeneration", "mistral3", config(
        None, "mistral", sliding_window=None, head_dim=12, rope_theta=1e6,
        drop=("architectures", "tie_word_embeddings")), image_token_index=47,
        tie_word_embeddings=False, spatial_merge_size=2), 128, False),
    "smollm3": (smollm3(tie_word_embeddings=True), 128, False),
    "smollm3-window-yarn": (smollm3(
        no_rope_layers=[1, 0, 1, 0], use_sliding_window=True, sliding_window=16, attention_bias=True,
        mlp_bias=True, rope_theta=1e5, rope_scaling={
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}), 128, False),
}


def save(model, in_memory, directory, is_gemma):
    """Writes the model's tensors with their numbers replaced; returns names and shapes."""
    file = os.path.join(directory, "model.safetensors")
    if in_memory:
        tied = set(getattr(model, "all_tied_weights_keys", None) or {})
        shapes = {k: list(v.shape) for k, v in model.state_dict().items() if k not in tied}
    else:
        with tempfile.TemporaryDirectory() as other:
            model.save_pretrained(other)
            with safe_open(os.path.join(other, "model.safetensors"), "np") as saved:
                shapes = {k: list(saved.get_slice(k).get_shape()) for k in saved.keys()}
    save_file({k: weights(k, s, is_gemma) for k, s in shapes.items()}, file, {"format": "pt"})
    return shapes


def run(name, fields, max_model_len, in_memory):
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "config.json"), "w") as file:
            json.dump(fields, file)
        auto = AutoModelForImageTextToText if "vision_config" in fields else AutoModelForCausalLM
        parsed = AutoConfig.from_pretrained(directory)
        torch.manual_seed(0)
        shapes = save(auto.from_config(parsed), in_memory, directory, "gemma" in name)
        model, info = auto.from_pretrained(directory, attn_implementation="eager",
                                           dtype=torch.float32, output_loading_info=True)
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not info[problem], (name, problem, info[problem])
        model.eval()
        prompt = [(i * i * 7 + i * 3 + 1) % 44 for i in range(PROMPT_LEN)]
        with torch.no_grad():
            logits = model(torch.tensor([prompt]), use_cache=False).logits[0]
        positions = [0, 7, 33, PROMPT_LEN - 1]
        rows = [[float(f"{x:.6g}") for x in logits[p].tolist()] for p in positions]
    return {"config": fields, "max_model_len": max_model_len, "tensors": shapes, "prompt": prompt,
            "positions": positions, "logits": rows}


def main():
    out = {"made_by": "make_goldens.py", "transformers": transformers.__version__,
           "torch": torch.__version__.split("+")[0]}
    only = set(sys.argv[1:])
    out["models"] = {}
    for name, case in CASES.items():
        if only and name not in only:
            continue
        out["models"][name] = run(name, *case)
        print(name, file=sys.stderr)
    lines = ",\n".join(f" {json.dumps(n)}: {json.dumps(m, separators=(',', ':'))}"
                       for n, m in out.pop("models").items())
    print(json.dumps(out)[:-1] + ', "models": {\n' + lines + "\n}}")


main()
