// Every kernel of the product, so that one module holds them all; nvcc compiles this file alone.
//
// Invariant: each file keeps to a namespace of its own.
#include "attention.cu"
#include "attention_merge.cu"
#include "conversions.cu"
#include "embed.cu"
#include "gated.cu"
#include "head_rms_norm.cu"
#include "linear_f32.cu"
#include "linear_skinny.cu"
#include "linear_tile.cu"
#include "logprobs.cu"
#include "moe.cu"
#include "resolve_tokens.cu"
#include "rms_norm.cu"
#include "rope_kv_write.cu"
#include "rowwise.cu"
#include "sample.cu"
