// head_rms_norm: rms_norm of each head of q and of k by itself, in place.
//
// qkv: [rows, num_heads + 2 num_kv_heads, head_dim] of T, rows `stride` elements apart. weights:
// [head_dim], f32. A warp a head; sums in f32.
// Source: the q and k norms of Qwen3 and Gemma 3.
#include "rows.cuh"

namespace head_rms_norm {

constexpr int THREADS = 128;

template <typename T>
struct Args {
    Global<T> qkv;
    Global<const float> q_weight;
    Global<const float> k_weight;
    uint32_t num_rows;
    uint32_t num_heads;
    uint32_t num_kv_heads;
    uint32_t head_dim;
    uint32_t stride;
    float eps;
};

template <typename T>
DEVICE void run(const Args<T>& args) {
    uint32_t heads = args.num_heads + args.num_kv_heads;
    int64_t index = int64_t(block_x()) * (THREADS / WARP) + warp_id();
    if (index >= int64_t(args.num_rows) * heads) {
        return;
    }
    uint32_t row = uint32_t(index / heads), head = uint32_t(index % heads);
    Global<T> x = args.qkv.from(int64_t(row) * args.stride + int64_t(head) * args.head_dim);
    Global<const float> weight = head < args.num_heads ? args.q_weight : args.k_weight;
    int head_dim = int(args.head_dim);
    float squares = 0.0f;
    for (int i = lane_id(); i < head_dim; i += WARP) {
        float v = to_f32(x.get(i));
        squares = fmaf(v, v, squares);
    }
    float scale = 1.0f / sqrtf(warp_sum(squares) / float(head_dim) + args.eps);
    for (int i = lane_id(); i < head_dim; i += WARP) {
        x.set(i, from_f32<T>(to_f32(x.get(i)) * scale * weight.get(i)));
    }
}

KERNEL(head_rms_norm_f32, Args<float>, THREADS, run<float>)
KERNEL(head_rms_norm_f16, Args<f16>, THREADS, run<f16>)
KERNEL(head_rms_norm_bf16, Args<bf16>, THREADS, run<bf16>)

}  // namespace head_rms_norm
