// Warp-wide operations: shuffles, votes, matrix loads and products.
//
// Each lane brings a small record on its own stack; the lane that comes last runs the operation
// for all.
//
// Invariant: fragments are laid out as the PTX manual draws them for m16n8k16 and m8n8.
#pragma once

#include "../types.cuh"
#include "core.h"

namespace emu {

extern const Collective SYNC;
extern const Collective SHFL;
extern const Collective BALLOT;
extern const Collective LDMATRIX;
extern const Collective MMA_BF16;
extern const Collective MMA_F16;

struct ShuffleLane {
    uint64_t value;
    int from;
    uint64_t result;
};

struct BallotLane {
    bool vote;
    uint32_t result;
};

struct MatrixLane {
    uint32_t* r;
    size_t offset;
};

struct MmaLane {
    float* c;
    const uint32_t* a;
    const uint32_t* b;
};

template <typename T>
T shuffle_lanes(const Collective& collective, T x, int from, int line) {
    static_assert(sizeof(T) <= 8, "one register, or two");
    ShuffleLane lane{0, from, 0};
    memcpy(&lane.value, &x, sizeof(T));
    wait_for_warp(collective, &lane, int(sizeof(T)), line);
    memcpy(&x, &lane.result, sizeof(T));
    return x;
}

/// The argument says how many matrices, and whether they are transposed.
template <int N>
void load_matrices(uint32_t (&r)[N], size_t offset, bool transposes, int line) {
    MatrixLane lane{r, offset};
    wait_for_warp(LDMATRIX, &lane, N | (transposes ? 16 : 0), line);
}

inline const Collective& mma_of(bf16) { return MMA_BF16; }
inline const Collective& mma_of(f16) { return MMA_F16; }

}  // namespace emu
