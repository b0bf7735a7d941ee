// soft_cap, add_bias and gather_rows: one element in, one element out.
//
// soft_cap: `x = cap * tanh(x / cap)`, in place. add_bias: `x[r] += bias`, bias [width] in f32, in
// place. gather_rows: `out[r] = x[index[r]]`. x, out: [rows, width] of T, rows `stride` elements
// apart. A thread a pack, blocks of a row side by side.
#include "rows.cuh"

namespace rowwise {

constexpr int THREADS = 128;

template <typename T>
struct Args {
    Global<T> x;
    /// add_bias only.
    Global<const float> bias;
    /// gather_rows only.
    Global<const uint32_t> index;
    Global<T> out;
    uint32_t width;
    uint32_t stride;
    /// soft_cap only.
    float cap;
    uint32_t unused;
};

/// Rewrites a pack of one row's elements in place: `change(args, i, v)` is the new element `i`.
template <typename T, typename Change>
DEVICE void rewrite(const Args<T>& args) {
    constexpr int LEN = Pack<T>::LEN;
    int width = int(args.width), i = (block_y() * THREADS + thread_id()) * LEN;
    if (i >= width) {
        return;
    }
    Global<T> x = args.x.from(int64_t(block_x()) * args.stride);
    float v[LEN];
    load_pack<T>(v, Global<const T>{x.at}, i, width);
#pragma unroll
    for (int j = 0; j < LEN; j++) {
        v[j] = Change::apply(args, i + j, v[j]);
    }
    store_pack<T>(x, i, width, v);
}

struct SoftCap {
    template <typename T>
    DEVICE static float apply(const Args<T>& args, int, float v) {
        return args.cap * tanhf(v / args.cap);
    }
};

struct AddBias {
    template <typename T>
    DEVICE static float apply(const Args<T>& args, int i, float v) {
        return i < int(args.width) ? v + args.bias.get(i) : 0.0f;
    }
};

template <typename T>
DEVICE void soft_cap(const Args<T>& args) {
    rewrite<T, SoftCap>(args);
}
template <typename T>
DEVICE void add_bias(const Args<T>& args) {
    rewrite<T, AddBias>(args);
}

template <typename T>
DEVICE void gather_rows(const Args<T>& args) {
    constexpr int LEN = Pack<T>::LEN;
    int width = int(args.width), i = (block_y() * THREADS + thread_id()) * LEN;
    if (i >= width) {
        return;
    }
    int64_t from = int64_t(args.index.get(block_x())) * args.stride;
    float v[LEN];
    load_pack<T>(v, Global<const T>{args.x.at}.from(from), i, width);
    store_pack<T>(args.out.from(int64_t(block_x()) * args.stride), i, width, v);
}

KERNEL(soft_cap_f32, Args<float>, THREADS, soft_cap<float>)
KERNEL(soft_cap_f16, Args<f16>, THREADS, soft_cap<f16>)
KERNEL(soft_cap_bf16, Args<bf16>, THREADS, soft_cap<bf16>)
KERNEL(add_bias_f32, Args<float>, THREADS, add_bias<float>)
KERNEL(add_bias_f16, Args<f16>, THREADS, add_bias<f16>)
KERNEL(add_bias_bf16, Args<bf16>, THREADS, add_bias<bf16>)
KERNEL(gather_rows_f32, Args<float>, THREADS, gather_rows<float>)
KERNEL(gather_rows_f16, Args<f16>, THREADS, gather_rows<f16>)
KERNEL(gather_rows_bf16, Args<bf16>, THREADS, gather_rows<bf16>)

}  // namespace rowwise
