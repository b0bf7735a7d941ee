// silu_mul and gelu_tanh_mul: `out = activation(gate) * up`.
//
// gate_up: [rows, 2 width] of T, gate first, rows `in_stride` elements apart; up may start anywhere
// in a row. out: [rows, width], rows `out_stride` apart. Computed in f32.
// gelu_tanh is x / (1 + e^-2u) with u = sqrt(2 / pi) * (x + 0.044715 x^3), which is
// x / 2 * (1 + tanh u) without its cancellation.
#include "rows.cuh"

namespace gated {

constexpr int THREADS = 128;

template <typename T>
struct Args {
    Global<const T> gate_up;
    Global<T> out;
    uint32_t width;
    uint32_t in_stride;
    uint32_t out_stride;
    uint32_t unused;
};

struct Silu {
    static DEVICE float apply(float x) { return x / (1.0f + expf(-x)); }
};

struct GeluTanh {
    static DEVICE float apply(float x) {
        // Minus twice the square root of 2 / pi.
        constexpr float FACTOR = -1.5957691216f;
        float cubic = fmaf(x * x, 0.044715f * FACTOR, FACTOR);
        return x / (1.0f + expf(x * cubic));
    }
};

template <typename T, typename Activation>
DEVICE void run(const Args<T>& args) {
    constexpr int LEN = Pack<T>::LEN;
    int width = int(args.width);
    int i = (block_y() * THREADS + thread_id()) * LEN;
    if (i >= width) {
        return;
    }
    Global<const T> gate = args.gate_up.from(int64_t(block_x()) * args.in_stride);
    Global<T> out = args.out.from(int64_t(block_x()) * args.out_stride);
    float g[LEN], u[LEN];
    load_pack<T>(g, gate, i, width);
    if (width % LEN == 0) {
        load_pack<T>(u, gate.from(width), i, width);
    } else {
#pragma unroll
        for (int j = 0; j < LEN; j++) {
            u[j] = i + j < width ? to_f32(gate.get(width + i + j)) : 0.0f;
        }
    }
#pragma unroll
    for (int j = 0; j < LEN; j++) {
        g[j] = Activation::apply(g[j]) * u[j];
    }
    store_pack<T>(out, i, width, g);
}

template <typename T>
DEVICE void silu(const Args<T>& args) {
    run<T, Silu>(args);
}
template <typename T>
DEVICE void gelu(const Args<T>& args) {
    run<T, GeluTanh>(args);
}

KERNEL(silu_mul_f32, Args<float>, THREADS, silu<float>)
KERNEL(silu_mul_f16, Args<f16>, THREADS, silu<f16>)
KERNEL(silu_mul_bf16, Args<bf16>, THREADS, silu<bf16>)
KERNEL(gelu_tanh_mul_f32, Args<float>, THREADS, gelu<float>)
KERNEL(gelu_tanh_mul_f16, Args<f16>, THREADS, gelu<f16>)
KERNEL(gelu_tanh_mul_bf16, Args<bf16>, THREADS, gelu<bf16>)

}  // namespace gated
