// linear for few rows: weights are streamed once through cp.async, a warp for each split of K.
//
// x: [rows, num_inputs] of T, rows x_stride elements apart. weight: [num_outputs, num_inputs] of T,
// or Q8_0 or Q4_K in planes (kernels/formats.cuh), which become T as they are used, rounded as
// `dequantize` rounds them: the bits are those of dequantizing first. Rows of both start at
// multiples of sixteen bytes. out: [rows, num_outputs] in any dtype. A block computes sixteen
// outputs of 8 N rows; grid: outputs, row tiles, groups.
//
// A lane copies its own sixteen-byte pieces and reads nobody else's: waits need no barrier.
// Invariant: the order over K is that of linear.cuh.
#include "formats.cuh"
#include "linear.cuh"

namespace linear_skinny {

using namespace linear;

constexpr int THREADS = NUM_SPLITS * WARP;
constexpr int STAGES = 3;
constexpr int OUTPUTS = 16;

/// Weights of T: a lane's share of a chunk is two pieces of each of two rows.
template <typename T>
struct Dense {
    using Element = T;
    static constexpr int PIECES = 4;

    /// Where piece `i` of a chunk at element `k` starts in a row, and how much of it there is.
    static DEVICE int64_t piece_at(int i, int k) { return int64_t(k + i / 2 * 8) * sizeof(T); }
    static DEVICE int piece_len(int i, int k, int end) {
        return valid_bytes<T>(k + i / 2 * 8, end);
    }
    static DEVICE void load(Share<T> (&w)[2], Shared<Pack<uint8_t>> pieces, const Args&, int64_t,
                            const int64_t (&)[2], int, int) {
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            Pack<uint8_t> piece = pieces.get(i * WARP);
            memcpy(&w[i % 2].half[i / 2], &piece, 16);
        }
    }
};

/// Q8_0: a lane's sixteen elements are sixteen bytes, of one scale.
template <typename T>
struct Q8_0 {
    using Element = T;
    static constexpr int PIECES = 2;

    static DEVICE int64_t piece_at(int, int k) { return k; }
    static DEVICE int piece_len(int, int k, int end) { return k < end ? 16 : 0; }
    static DEVICE void load(Share<T> (&w)[2], Shared<Pack<uint8_t>> pieces, const Args& args,
                            int64_t group, const int64_t (&rows)[2], int k, int end) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            Pack<uint8_t> quants = pieces.get(i * WARP);
            int64_t at = group * args.scale_group_bytes + rows[i] * args.scale_row_bytes;
            float d = k < end ? half_at(args.scales, at + k / 32 * 2) : 0.0f;
#pragma unroll
            for (int j = 0; j < 16; j++) {
                w[i].half[j / 8].v[j % 8] = from_f32<T>(float(int8_t(quants.v[j])) * d);
            }
        }
    }
};

/// Q4_K: a lane's sixteen elements are the low or the high nibbles of sixteen bytes.
template <typename T>
struct Q4_K {
    using Element = T;
    static constexpr int PIECES = 2;

    static DEVICE int64_t piece_at(int, int k) { return k / CHUNK * 32 + k % 32; }
    static DEVICE int piece_len(int, int k, int end) { return k < end ? 16 : 0; }
    static DEVICE void load(Share<T> (&w)[2], Shared<Pack<uint8_t>> pieces, const Args& args,
                            int64_t group, const int64_t (&rows)[2], int k, int end) {
        int part = k / 32 % 8, shift = part % 2 * 4;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            Pack<uint8_t> nibbles = pieces.get(i * WARP);
            float d = 0.0f, min = 0.0f;
            if (k < end) {
                int64_t at = group * args.scale_group_bytes + rows[i] * args.scale_row_bytes;
                Bytes scales = args.scales.from(at + k / 256 * 16);
                ScaleMin s = scale_min(scales, 4, part);
                d = half_at(scales, 0) * s.scale;
                min = half_at(scales, 2) * s.min;
            }
#pragma unroll
            for (int j = 0; j < 16; j++) {
                float q = float(nibbles.v[j] >> shift & 15);
                w[i].half[j / 8].v[j % 8] = from_f32<T>(d * q - min);
            }
        }
    }
};

/// What a lane needs to find its pieces.
template <int N>
struct Lane {
    int64_t group;
    /// Rows of weights, clamped to the last: what is computed from a row twice is not stored.
    int64_t w_rows[2];
    int64_t x_rows[N];
    int quad;
    int begin;
    int end;
};

template <typename W, int N>
DEVICE void start(const Args& args, const Lane<N>& lane, Shared<Pack<uint8_t>> stage, int chunk) {
    using T = typename W::Element;
    int k = lane.begin + chunk * CHUNK + lane.quad * 16;
    if (lane.begin + chunk * CHUNK < lane.end) {
#pragma unroll
        for (int i = 0; i < W::PIECES; i++) {
            int64_t row = lane.group * args.weight_group_bytes +
                          lane.w_rows[i % 2] * args.weight_row_bytes;
            int len = W::piece_len(i, k, lane.end);
            cp_async16(stage, i * WARP, args.weight, len > 0 ? row + W::piece_at(i, k) : 0, len);
        }
#pragma unroll
        for (int n = 0; n < 2 * N; n++) {
            int at = k + n % 2 * 8, len = valid_bytes<T>(at, lane.end);
            int64_t from = (lane.x_rows[n / 2] * args.x_stride + at) * int64_t(sizeof(T));
            cp_async16(stage, (W::PIECES + n) * WARP, args.x, len > 0 ? from : 0, len);
        }
    }
    cp_async_commit();
}

/// One warp's split: from zero, in the order of k.
template <typename W, int N>
DEVICE void sum_split(const Args& args, const Lane<N>& lane, float (&acc)[N][4]) {
    using T = typename W::Element;
    constexpr int PIECES = W::PIECES + 2 * N;
    Shared<Pack<uint8_t>> own =
        dynamic_shared<Pack<uint8_t>>(0, NUM_SPLITS * STAGES * PIECES * WARP)
            .from(warp_id() * STAGES * PIECES * WARP + lane_id());
    int num_chunks = lane.begin < lane.end ? div_up(lane.end - lane.begin, CHUNK) : 0;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        start<W, N>(args, lane, own.from(i * PIECES * WARP), i);
    }
    for (int chunk = 0; chunk < num_chunks; chunk++) {
        cp_async_wait<STAGES - 2>();
        Shared<Pack<uint8_t>> stage = own.from(chunk % STAGES * PIECES * WARP);
        Share<T> w[2], x[N];
        int k = lane.begin + chunk * CHUNK + lane.quad * 16;
        W::load(w, stage, args, lane.group, lane.w_rows, k, lane.end);
#pragma unroll
        for (int n = 0; n < 2 * N; n++) {
            Pack<uint8_t> piece = stage.get((W::PIECES + n) * WARP);
            memcpy(&x[n / 2].half[n % 2], &piece, 16);
        }
        // The slot that was read last, so that no copy overtakes a read.
        int next = chunk + STAGES - 1;
        start<W, N>(args, lane, own.from(next % STAGES * PIECES * WARP), next);
        multiply<T, N>(acc, w, x);
    }
    cp_async_wait<0>();
}

template <typename W, int N>
DEVICE void run(const Args& args) {
    Rows rows = group_rows(args, block_z());
    int first_row = rows.begin + block_y() * 8 * N, first_output = block_x() * OUTPUTS;
    if (first_row >= rows.end) {
        return;
    }
    int g = lane_id() / 4;
    Lane<N> lane;
    lane.group = block_z();
    lane.quad = lane_id() % 4;
    for (int i = 0; i < 2; i++) {
        lane.w_rows[i] = min_of(first_output + g + 8 * i, int(args.num_outputs) - 1);
    }
    for (int n = 0; n < N; n++) {
        lane.x_rows[n] = x_row(args, min_of(first_row + 8 * n + g, rows.end - 1));
    }
    int len = split_len(int(args.num_inputs));
    lane.begin = warp_id() * len;
    lane.end = min_of(lane.begin + len, int(args.num_inputs));
    float acc[N][4] = {};
    sum_split<W, N>(args, lane, acc);
    // Splits, then rows, then outputs; a thread adds the splits of its own elements in order.
    constexpr int ELEMENTS = 8 * N * OUTPUTS;
    Shared<float> sums = dynamic_shared<float>(0, NUM_SPLITS * ELEMENTS);
    sync_block();
    for (int n = 0; n < N; n++) {
        for (int i = 0; i < 4; i++) {
            int row = 8 * n + 2 * lane.quad + i % 2, output = g + i / 2 * 8;
            sums.set(warp_id() * ELEMENTS + row * OUTPUTS + output, acc[n][i]);
        }
    }
    sync_block();
    for (int e = thread_id(); e < ELEMENTS; e += THREADS) {
        int row = first_row + e / OUTPUTS, output = first_output + e % OUTPUTS;
        if (row >= rows.end || output >= int(args.num_outputs)) {
            continue;
        }
        float sum = sums.get(e);
        for (int split = 1; split < NUM_SPLITS; split++) {
            sum += sums.get(split * ELEMENTS + e);
        }
        store(args, row, output, sum);
    }
}

#define SKINNY(suffix, W)                                                   \
    KERNEL(linear_skinny_##suffix##_8, Args, THREADS, run<W, 1>)            \
    KERNEL(linear_skinny_##suffix##_16, Args, THREADS, run<W, 2>)

SKINNY(f16, Dense<f16>)
SKINNY(bf16, Dense<bf16>)
SKINNY(q8_0_f16, Q8_0<f16>)
SKINNY(q8_0_bf16, Q8_0<bf16>)
SKINNY(q4_k_f16, Q4_K<f16>)
SKINNY(q4_k_bf16, Q4_K<bf16>)

}  // namespace linear_skinny
