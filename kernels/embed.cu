// embed and dequantize: rows of a weight matrix in any format, widened, scaled and rounded to T.
//
// embed: `out[r] = table[token_ids[r]] * scale`; an id that the table does not have makes the row
// NaN, which fails the sequence that asked for it and no other. dequantize is embed without ids:
// `out[r] = table[r]`. out: [rows, width] of T, rows `stride` elements apart. The table may be cut
// in parts one above the other, each launched by itself: ids count from `first_row`, and a launch
// leaves rows of other parts alone unless it is the one with `is_last`. Of a matrix of groups
// (experts) only those with rows to multiply are widened: the others keep what is there.
//
// A thread computes a pack of sixteen bytes. Rows of out start at multiples of that.
#include "formats.cuh"
#include "rows.cuh"

namespace embed {

constexpr int THREADS = 128;

template <typename T>
struct Args {
    Weights table;
    /// Null for dequantize.
    Global<const uint32_t> token_ids;
    Global<T> out;
    /// For dequantize: the rows of each group, `rows_per_group` rows of the table. Null: no groups.
    Global<const uint32_t> group_offsets;
    uint32_t format;
    uint32_t first_row;
    uint32_t num_table_rows;
    uint32_t width;
    uint32_t stride;
    float scale;
    uint32_t is_last;
    uint32_t rows_per_group;
};

/// A pack of row `from` of the table to row `to` of out. The format is a constant here, so that
/// what elements of a block share is read once.
template <typename T, Format F>
DEVICE void widen(const Args<T>& args, int64_t from, int64_t to, int i) {
    constexpr int LEN = Pack<T>::LEN;
    int width = int(args.width);
    float v[LEN];
#pragma unroll
    for (int j = 0; j < LEN; j++) {
        v[j] = i + j < width ? weight_at(F, args.table, from, i + j) * args.scale : 0.0f;
    }
    store_pack(args.out.from(to * args.stride), i, width, v);
}

template <typename T>
DEVICE void widen_any(const Args<T>& args, int64_t from, int64_t to, int i) {
    switch (Format(args.format)) {
        case Format::F32:
            return widen<T, Format::F32>(args, from, to, i);
        case Format::F16:
            return widen<T, Format::F16>(args, from, to, i);
        case Format::BF16:
            return widen<T, Format::BF16>(args, from, to, i);
        case Format::Q4_0:
            return widen<T, Format::Q4_0>(args, from, to, i);
        case Format::Q4_1:
            return widen<T, Format::Q4_1>(args, from, to, i);
        case Format::Q5_0:
            return widen<T, Format::Q5_0>(args, from, to, i);
        case Format::Q5_1:
            return widen<T, Format::Q5_1>(args, from, to, i);
        case Format::Q8_0:
            return widen<T, Format::Q8_0>(args, from, to, i);
        case Format::Q2_K:
            return widen<T, Format::Q2_K>(args, from, to, i);
        case Format::Q3_K:
            return widen<T, Format::Q3_K>(args, from, to, i);
        case Format::Q4_K:
            return widen<T, Format::Q4_K>(args, from, to, i);
        case Format::Q5_K:
            return widen<T, Format::Q5_K>(args, from, to, i);
        case Format::Q6_K:
            return widen<T, Format::Q6_K>(args, from, to, i);
        case Format::Q8_0_PLANES:
            return widen<T, Format::Q8_0_PLANES>(args, from, to, i);
        default:
            return widen<T, Format::Q4_K_PLANES>(args, from, to, i);
    }
}

template <typename T>
DEVICE void run(const Args<T>& args) {
    constexpr int LEN = Pack<T>::LEN;
    int row = block_x(), i = (block_y() * THREADS + thread_id()) * LEN;
    if (i >= int(args.width)) {
        return;
    }
    if (!args.group_offsets.is_null()) {
        int group = row / int(args.rows_per_group);
        if (args.group_offsets.get(group) == args.group_offsets.get(group + 1)) {
            return;
        }
    }
    uint32_t id = args.token_ids.is_null() ? uint32_t(row) : args.token_ids.get(row);
    if (id >= args.first_row && id - args.first_row < args.num_table_rows) {
        widen_any(args, id - args.first_row, row, i);
    } else if (id >= args.first_row && args.is_last) {
        float v[LEN];
#pragma unroll
        for (int j = 0; j < LEN; j++) {
            v[j] = NAN;
        }
        store_pack(args.out.from(int64_t(row) * args.stride), i, int(args.width), v);
    }
}

KERNEL(embed_f32, Args<float>, THREADS, run<float>)
KERNEL(embed_f16, Args<f16>, THREADS, run<f16>)
KERNEL(embed_bf16, Args<bf16>, THREADS, run<bf16>)

}  // namespace embed
