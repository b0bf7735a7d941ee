// The order of a matrix product over K, the same for every number of rows.
//
// `out[r][n] = sum over k of w[n][k] * x[r][k]`. K is cut into eight splits of equal length, a
// multiple of 64; each split is summed from zero by mma in the order of k, and the eight sums are
// added in order. Within 64 elements, mma number m takes elements 16 t + 4 m to 16 t + 4 m + 3 of
// every t below 4: lane t of a quad holds 32 bytes that lie side by side, so both operands are
// loaded as they lie in memory. Weights are always the left operand (sixteen outputs), rows always
// the right one (eight rows).
//
// Invariant: the sum for one output and row is a function of that weight row and that x row alone.
#pragma once

#include "activations.cuh"

namespace linear {

constexpr int NUM_SPLITS = 8;
constexpr int CHUNK = 64;

/// What is shared by all products; the struct of the host's `Linear`.
struct Args {
    Global<const uint8_t> x;
    Global<const uint8_t> weight;
    /// Scales, where the format has them apart.
    Global<const uint8_t> scales;
    Global<uint8_t> out;
    /// For each row of `out` the row of `x` that it is made from; null: the same.
    Global<const uint32_t> x_rows;
    /// Rows of `out` by group (expert): group g has rows offsets[g] to offsets[g + 1]. Null: one
    /// group of num_rows.
    Global<const uint32_t> group_offsets;
    /// Bytes from one row, and one group, of weights to the next.
    int64_t weight_row_bytes;
    int64_t weight_group_bytes;
    int64_t scale_row_bytes;
    int64_t scale_group_bytes;
    uint32_t num_rows;
    uint32_t num_outputs;
    uint32_t num_inputs;
    /// Elements.
    uint32_t x_stride;
    uint32_t out_stride;
    /// A `Dtype`.
    uint32_t out_dtype;
};

/// Elements of a split.
DEVICE int split_len(int num_inputs) {
    return div_up(div_up(num_inputs, NUM_SPLITS), CHUNK) * CHUNK;
}

/// The rows of a block's group.
struct Rows {
    int begin;
    int end;
};
DEVICE Rows group_rows(const Args& args, int group) {
    if (args.group_offsets.is_null()) {
        return {0, int(args.num_rows)};
    }
    return {int(args.group_offsets.get(group)), int(args.group_offsets.get(group + 1))};
}

/// The row of x that row `row` of out is made from.
DEVICE int64_t x_row(const Args& args, int row) {
    return args.x_rows.is_null() ? row : int64_t(args.x_rows.get(row));
}

DEVICE void store(const Args& args, int row, int n, float x) {
    store_as(Dtype(args.out_dtype), args.out, int64_t(row) * args.out_stride + n, x);
}

/// A lane's share of 64 elements of one row: 16 elements side by side.
template <typename T>
struct Share {
    Pack<T> half[2];

    /// Elements 4 m to 4 m + 3, as a fragment's two registers.
    DEVICE void fragment(int m, uint32_t& low, uint32_t& high) const {
        const Pack<T>& pack = half[m / 2];
        int i = m % 2 * 4;
        low = uint32_t(pack.v[i].bits) | uint32_t(pack.v[i + 1].bits) << 16;
        high = uint32_t(pack.v[i + 2].bits) | uint32_t(pack.v[i + 3].bits) << 16;
    }
};

/// Adds 64 elements of sixteen outputs and `N` times eight rows: `w` are rows g and g + 8 of the
/// weights, `x[n]` row 8 n + g of x.
template <typename T, int N>
DEVICE void multiply(float (&acc)[N][4], const Share<T> (&w)[2], const Share<T> (&x)[N]) {
#pragma unroll
    for (int m = 0; m < 4; m++) {
        uint32_t a[4];
        w[0].fragment(m, a[0], a[2]);
        w[1].fragment(m, a[1], a[3]);
#pragma unroll
        for (int n = 0; n < N; n++) {
            uint32_t b[2];
            x[n].fragment(m, b[0], b[1]);
            mma_m16n8k16<T>(acc[n], a, b);
        }
    }
}

/// Bytes of the sixteen from element `k` on that are before element `end`.
template <typename T>
DEVICE int valid_bytes(int k, int end) {
    int len = end - k;
    return (len < 0 ? 0 : len > Pack<T>::LEN ? Pack<T>::LEN : len) * int(sizeof(T));
}

}  // namespace linear
