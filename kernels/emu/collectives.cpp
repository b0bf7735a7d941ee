// What the warp-wide operations compute, once all lanes have come.
//
// Invariant: products of sixteen-bit numbers are summed in f64 and rounded to f32 once a mma; the
// card's order inside one mma is not documented, so no test may depend on it.
#include "collectives.h"

namespace emu {

static void run_sync(Context& c, int warp, void**, int) { c.warps[warp].epoch += 1; }

static void run_shuffle(Context&, int, void** lanes, int) {
    for (int i = 0; i < WARP_LANES; i++) {
        ShuffleLane& lane = *static_cast<ShuffleLane*>(lanes[i]);
        lane.result = static_cast<ShuffleLane*>(lanes[lane.from & 31])->value;
    }
}

static void run_ballot(Context&, int, void** lanes, int) {
    uint32_t votes = 0;
    for (int i = 0; i < WARP_LANES; i++) {
        votes |= uint32_t(static_cast<BallotLane*>(lanes[i])->vote) << i;
    }
    for (int i = 0; i < WARP_LANES; i++) {
        static_cast<BallotLane*>(lanes[i])->result = votes;
    }
}

static void run_ldmatrix(Context& c, int warp, void** lanes, int argument) {
    int num_matrices = argument & 15;
    bool transposes = argument & 16;
    for (int m = 0; m < num_matrices; m++) {
        uint16_t matrix[8][8];
        for (int row = 0; row < 8; row++) {
            int provider = 8 * m + row;
            size_t offset = static_cast<MatrixLane*>(lanes[provider])->offset;
            Fiber& fiber = c.fibers[warp * WARP_LANES + provider];
            check_shared(fiber, offset, 16, 16, Access::Read);
            memcpy(matrix[row], c.arena + offset, 16);
        }
        for (int i = 0; i < WARP_LANES; i++) {
            int row = i / 4, column = 2 * (i % 4);
            uint32_t low = transposes ? matrix[column][row] : matrix[row][column];
            uint32_t high = transposes ? matrix[column + 1][row] : matrix[row][column + 1];
            static_cast<MatrixLane*>(lanes[i])->r[m] = low | high << 16;
        }
    }
}

template <typename T>
static void run_mma(Context&, int, void** lanes, int) {
    double a[16][16], b[16][8], c[16][8];
    auto half_of = [](uint32_t pair, int i) {
        T x;
        x.bits = uint16_t(pair >> (16 * i));
        return double(to_f32(x));
    };
    for (int lane = 0; lane < WARP_LANES; lane++) {
        const MmaLane& of = *static_cast<MmaLane*>(lanes[lane]);
        int group = lane / 4, pair = 2 * (lane % 4);
        for (int i = 0; i < 2; i++) {
            a[group][pair + i] = half_of(of.a[0], i);
            a[group + 8][pair + i] = half_of(of.a[1], i);
            a[group][pair + 8 + i] = half_of(of.a[2], i);
            a[group + 8][pair + 8 + i] = half_of(of.a[3], i);
            b[pair + i][group] = half_of(of.b[0], i);
            b[pair + 8 + i][group] = half_of(of.b[1], i);
        }
    }
    for (int m = 0; m < 16; m++) {
        double sum[8] = {};
        for (int k = 0; k < 16; k++) {
            for (int n = 0; n < 8; n++) {
                sum[n] += a[m][k] * b[k][n];
            }
        }
        for (int n = 0; n < 8; n++) {
            c[m][n] = sum[n];
        }
    }
    for (int lane = 0; lane < WARP_LANES; lane++) {
        const MmaLane& of = *static_cast<MmaLane*>(lanes[lane]);
        int group = lane / 4, pair = 2 * (lane % 4);
        for (int i = 0; i < 4; i++) {
            of.c[i] = float(double(of.c[i]) + c[group + 8 * (i / 2)][pair + i % 2]);
        }
    }
}

const Collective SYNC{"sync_warp", run_sync};
const Collective SHFL{"a shuffle", run_shuffle};
const Collective BALLOT{"a ballot", run_ballot};
const Collective LDMATRIX{"ldmatrix", run_ldmatrix};
const Collective MMA_BF16{"mma", run_mma<bf16>};
const Collective MMA_F16{"mma", run_mma<f16>};

}  // namespace emu
