// embed and dequantize: rows of a weight matrix in any format, widened, scaled and rounded to T.
//
// embed: `out[r] = table[token_ids[r]] * scale`; an id that the table does not have makes the row
// NaN, which fails the sequence that asked for it and no other. dequantize is embed without ids:
// `out[r] = table[r]`. out: [rows, width] of T, rows `stride` elements apart. The table may be cut
// in parts one above the other, each launched by itself: ids count from `first_row`, and a launch
// leaves rows of other parts alone unless it is the one with `is_last`.
#include "formats.cuh"

namespace embed {

constexpr int THREADS = 128;

template <typename T>
struct Args {
    Weights table;
    /// Null for dequantize.
    Global<const uint32_t> token_ids;
    Global<T> out;
    uint32_t format;
    uint32_t first_row;
    uint32_t num_table_rows;
    uint32_t width;
    uint32_t stride;
    float scale;
    uint32_t is_last;
    uint32_t unused;
};

template <typename T>
DEVICE void run(const Args<T>& args) {
    int row = block_x(), i = block_y() * THREADS + thread_id();
    if (i >= int(args.width)) {
        return;
    }
    uint32_t id = args.token_ids.is_null() ? uint32_t(row) : args.token_ids.get(row);
    float x = NAN;
    if (id >= args.first_row && id - args.first_row < args.num_table_rows) {
        x = weight_at(Format(args.format), args.table, id - args.first_row, i) * args.scale;
    } else if (id < args.first_row || !args.is_last) {
        return;
    }
    args.out.set(int64_t(row) * args.stride + i, from_f32<T>(x));
}

KERNEL(embed_f32, Args<float>, THREADS, run<float>)
KERNEL(embed_f16, Args<f16>, THREADS, run<f16>)
KERNEL(embed_bf16, Args<bf16>, THREADS, run<bf16>)

}  // namespace embed
