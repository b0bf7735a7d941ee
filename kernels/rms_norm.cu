// rms_norm: `out = x / sqrt(mean(x * x) + eps) * weight`, row by row, with the residual's addition
// fused where there is one: `residual += x` first, and the norm is of the rounded sum.
//
// x, residual, out: [rows, width] of T, rows `stride` elements apart. weight: [width], f32; where a
// family multiplies by 1 + weight, the host added the one. A block a row.
// Source: Zhang and Sennrich 2019; sums in f32.
#include "rows.cuh"

namespace rms_norm {

constexpr int THREADS = 256;

template <typename T>
struct Args {
    Global<const T> x;
    Global<T> residual;
    Global<const float> weight;
    Global<T> out;
    uint32_t width;
    uint32_t stride;
    float eps;
    uint32_t unused;
};

template <typename T>
DEVICE void run(const Args<T>& args) {
    constexpr int LEN = Pack<T>::LEN;
    int width = int(args.width);
    int64_t start = int64_t(block_x()) * args.stride;
    Global<const T> x = args.x.from(start);
    bool adds = !args.residual.is_null();
    Global<T> residual = args.residual.from(adds ? start : 0);
    float squares = 0.0f;
    for (int i = thread_id() * LEN; i < width; i += THREADS * LEN) {
        float v[LEN];
        load_pack<T>(v, x, i, width);
        if (adds) {
            float r[LEN];
            load_pack<T>(r, Global<const T>{residual.at}, i, width);
#pragma unroll
            for (int j = 0; j < LEN; j++) {
                v[j] = to_f32(from_f32<T>(v[j] + r[j]));
            }
            store_pack<T>(residual, i, width, v);
        }
#pragma unroll
        for (int j = 0; j < LEN; j++) {
            squares = fmaf(v[j], v[j], squares);
        }
    }
    float mean = block_sum(squares) / float(width);
    float scale = 1.0f / sqrtf(mean + args.eps);
    // Each thread reads again what it wrote itself.
    Global<const T> from = adds ? Global<const T>{residual.at} : x;
    for (int i = thread_id() * LEN; i < width; i += THREADS * LEN) {
        float v[LEN];
        load_pack<T>(v, from, i, width);
#pragma unroll
        for (int j = 0; j < LEN; j++) {
            if (i + j < width) {
                v[j] = v[j] * scale * args.weight.get(i + j);
            }
        }
        store_pack<T>(args.out.from(start), i, width, v);
    }
}

KERNEL(rms_norm_f32, Args<float>, THREADS, run<float>)
KERNEL(rms_norm_f16, Args<f16>, THREADS, run<f16>)
KERNEL(rms_norm_bf16, Args<bf16>, THREADS, run<bf16>)

}  // namespace rms_norm
