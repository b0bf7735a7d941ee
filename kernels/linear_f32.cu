// linear in f32, for models in f32: plain multiply-adds in the order of k, no matrix unit.
//
// Contract as linear_skinny.cu with T = f32. A block computes 64 outputs of 16 rows, a thread four
// outputs of one row. TF32 would keep eleven bits of each factor.
//
// Invariant: an element is one chain of fused multiply-adds from k = 0 on.
#include "linear.cuh"

namespace linear_f32 {

using namespace linear;

constexpr int THREADS = 256;
constexpr int OUTPUTS = 64;
constexpr int ROWS = 16;
constexpr int DEPTH = 32;
/// Floats of a row of a stage: four more than it holds, so that rows lie in other banks.
constexpr int PITCH = DEPTH + 4;
constexpr int STAGE_LEN = (OUTPUTS + ROWS) * PITCH;

DEVICE void start(const Args& args, Shared<float> stage, int64_t group, int first_output,
                  int first_row, int end_row, int k0) {
    int end = int(args.num_inputs);
    for (int i = thread_id(); i < (OUTPUTS + ROWS) * (DEPTH / 4); i += THREADS) {
        int row = i / (DEPTH / 4), k = k0 + i % (DEPTH / 4) * 4;
        int to = row * PITCH + i % (DEPTH / 4) * 4, len = valid_bytes<float>(k, end);
        if (row < OUTPUTS) {
            int64_t output = min_of(first_output + row, int(args.num_outputs) - 1);
            int64_t at = group * args.weight_group_bytes + output * args.weight_row_bytes + 4LL * k;
            cp_async16(stage, to, args.weight, len > 0 ? at : 0, len);
        } else {
            int64_t r = x_row(args, min_of(first_row + row - OUTPUTS, end_row - 1));
            cp_async16(stage, to, args.x, len > 0 ? 4 * (r * args.x_stride + k) : 0, len);
        }
    }
    cp_async_commit();
}

DEVICE void run(const Args& args) {
    Rows rows = group_rows(args, block_z());
    int first_row = rows.begin + block_y() * ROWS, first_output = block_x() * OUTPUTS;
    if (first_row >= rows.end) {
        return;
    }
    SHARED_ARRAY(float, stages, 2 * STAGE_LEN);
    int row = thread_id() / 16, column = thread_id() % 16, num_inputs = int(args.num_inputs);
    start(args, stages, block_z(), first_output, first_row, rows.end, 0);
    float acc[4] = {};
    for (int k0 = 0, stage = 0; k0 < num_inputs; k0 += DEPTH, stage ^= 1) {
        cp_async_wait<0>();
        sync_block();
        if (k0 + DEPTH < num_inputs) {
            start(args, stages.from((stage ^ 1) * STAGE_LEN), block_z(), first_output, first_row,
                  rows.end, k0 + DEPTH);
        }
        Shared<float> w = stages.from(stage * STAGE_LEN);
        Shared<float> x = w.from((OUTPUTS + row) * PITCH);
        for (int k = 0; k < DEPTH; k++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                acc[j] = fmaf(w.get((column + 16 * j) * PITCH + k), x.get(k), acc[j]);
            }
        }
    }
    for (int j = 0; j < 4; j++) {
        int output = first_output + column + 16 * j;
        if (first_row + row < rows.end && output < int(args.num_outputs)) {
            store(args, first_row + row, output, acc[j]);
        }
    }
}

KERNEL(linear_f32, Args, THREADS, run)

}  // namespace linear_f32
