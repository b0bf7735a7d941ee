// linear for many rows: 128 outputs of 64 rows a block, both operands through shared memory.
//
// Contract as linear_skinny.cu, for weights of T. Eight warps, four along the outputs and two along
// the rows; each holds two by four products of 16 by 8, twice: the running split, and the sum of
// those before it. Pieces of sixteen bytes lie in shared memory as in the rows, odd rows with
// neighbours swapped, so that eight lanes read from all banks.
//
// Invariant: the order over K is that of linear.cuh.
#include "linear.cuh"

namespace linear_tile {

using namespace linear;

constexpr int THREADS = 256;
constexpr int STAGES = 3;
constexpr int OUTPUTS = 128;
constexpr int ROWS = 64;
constexpr int PIECES = 8;
constexpr int STAGE_LEN = (OUTPUTS + ROWS) * PIECES;
constexpr int M = 2;
constexpr int N = 4;

using Stage = Shared<Pack<uint8_t>>;

/// Where a block is.
struct Place {
    int64_t group;
    int first_output;
    int first_row;
    int end_row;
};

/// The chunks of K in order: those of split 0, then of split 1, and so on.
struct Chunk {
    int split_len;
    int num_inputs;
    int k;
    int end;

    DEVICE Chunk(int len, int inputs) : split_len(len), num_inputs(inputs), k(0) {
        end = min_of(len, inputs);
    }
    DEVICE bool is_done() const { return k >= num_inputs; }
    /// Goes on; whether that ended a split.
    DEVICE bool next() {
        k += CHUNK;
        if (k < end) {
            return false;
        }
        k = end;
        end = min_of(end + split_len, num_inputs);
        return true;
    }
};

template <typename T>
DEVICE void start(const Args& args, const Place& place, Stage stage, const Chunk& chunk) {
    if (!chunk.is_done()) {
        for (int i = thread_id(); i < STAGE_LEN; i += THREADS) {
            int row = i / PIECES, piece = i % PIECES, k = chunk.k + piece * 8;
            int to = row * PIECES + (piece ^ (row & 1)), len = valid_bytes<T>(k, chunk.end);
            int64_t column = int64_t(k) * sizeof(T);
            if (row < OUTPUTS) {
                // Rows behind the last are computed again and not stored.
                int64_t output = min_of(place.first_output + row, int(args.num_outputs) - 1);
                int64_t at = place.group * args.weight_group_bytes +
                             output * args.weight_row_bytes + column;
                cp_async16(stage, to, args.weight, len > 0 ? at : 0, len);
            } else {
                int64_t r = x_row(args, min_of(place.first_row + row - OUTPUTS, place.end_row - 1));
                int64_t at = r * args.x_stride * int64_t(sizeof(T)) + column;
                cp_async16(stage, to, args.x, len > 0 ? at : 0, len);
            }
        }
    }
    cp_async_commit();
}

/// This lane's share of row `row` of a stage.
template <typename T>
DEVICE void load(Share<T>& share, Stage stage, int row) {
    int quad = lane_id() % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        Pack<uint8_t> piece = stage.get(row * PIECES + ((2 * quad + h) ^ (row & 1)));
        memcpy(&share.half[h], &piece, 16);
    }
}

template <typename T>
DEVICE void multiply_stage(float (&acc)[M][N][4], Stage stage) {
    int g = lane_id() / 4, output = warp_id() / 2 * 32, row = warp_id() % 2 * 32;
    Share<T> x[N];
#pragma unroll
    for (int n = 0; n < N; n++) {
        load<T>(x[n], stage, OUTPUTS + row + 8 * n + g);
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
        Share<T> w[2];
        load<T>(w[0], stage, output + 16 * m + g);
        load<T>(w[1], stage, output + 16 * m + g + 8);
        multiply<T, N>(acc[m], w, x);
    }
}

DEVICE void fold(float (&total)[M][N][4], float (&acc)[M][N][4]) {
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                total[m][n][i] += acc[m][n][i];
                acc[m][n][i] = 0.0f;
            }
        }
    }
}

DEVICE void store_tile(const Args& args, const Place& place, const float (&total)[M][N][4]) {
    int g = lane_id() / 4, quad = lane_id() % 4;
    int output = place.first_output + warp_id() / 2 * 32, row = place.first_row + warp_id() % 2 * 32;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int r = row + 8 * n + 2 * quad + i % 2, o = output + 16 * m + g + i / 2 * 8;
                if (r < place.end_row && o < int(args.num_outputs)) {
                    store(args, r, o, total[m][n][i]);
                }
            }
        }
    }
}

template <typename T>
DEVICE void run(const Args& args) {
    Rows rows = group_rows(args, block_z());
    Place place{block_z(), block_x() * OUTPUTS, rows.begin + block_y() * ROWS, rows.end};
    if (place.first_row >= rows.end) {
        return;
    }
    Stage stages = dynamic_shared<Pack<uint8_t>>(0, STAGES * STAGE_LEN);
    int len = split_len(int(args.num_inputs));
    Chunk ahead(len, int(args.num_inputs)), chunk(len, int(args.num_inputs));
    for (int i = 0; i < STAGES - 1; i++) {
        start<T>(args, place, stages.from(i * STAGE_LEN), ahead);
        ahead.next();
    }
    float acc[M][N][4] = {}, total[M][N][4] = {};
    for (int i = 0; !chunk.is_done(); i++) {
        cp_async_wait<STAGES - 2>();
        // Everyone's pieces are there, and everyone has read the stage that is overwritten next.
        sync_block();
        start<T>(args, place, stages.from((i + STAGES - 1) % STAGES * STAGE_LEN), ahead);
        ahead.next();
        multiply_stage<T>(acc, stages.from(i % STAGES * STAGE_LEN));
        if (chunk.next()) {
            fold(total, acc);
        }
    }
    cp_async_wait<0>();
    store_tile(args, place, total);
}

KERNEL(linear_tile_f16, Args, THREADS, run<f16>)
KERNEL(linear_tile_bf16, Args, THREADS, run<bf16>)

}  // namespace linear_tile
