// What kernels are written in: threads, barriers, collectives, memory; one source for nvcc and for
// the host's emulator.
//
// On the card each of these is an inline function around one instruction (device_cuda.cuh); on the
// host the same names resolve to the emulator (emu/device_emu.h), which checks every access.
//
// Invariant: no kernel uses a CUDA built-in by its own name.
#pragma once

#include "types.cuh"

#if defined(__CUDACC__)
#include "device_cuda.cuh"
#else
#include "emu/device_emu.h"
#endif

constexpr int WARP = 32;

/// The sum over a warp, in every lane: lanes 16 apart first, then 8, 4, 2, 1.
DEVICE float warp_sum(float x) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        x += shfl_xor(x, mask);
    }
    return x;
}

/// The largest over a warp, in every lane; a NaN may be passed over.
DEVICE float warp_max(float x) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        float other = shfl_xor(x, mask);
        x = other > x ? other : x;
    }
    return x;
}

/// The sum over a block of at most 1024 threads, in every thread, in one order for a block size.
DEVICE float block_sum(float x) {
    SHARED_ARRAY(float, parts, WARP);
    int num_warps = num_threads() / WARP;
    float own = warp_sum(x);
    sync_block();
    if (lane_id() == 0) {
        parts.set(warp_id(), own);
    }
    sync_block();
    float part = lane_id() < num_warps ? parts.get(lane_id()) : 0.0f;
    return warp_sum(part);
}

/// The largest over a block, in every thread; a NaN may be passed over.
DEVICE float block_max(float x) {
    SHARED_ARRAY(float, parts, WARP);
    int num_warps = num_threads() / WARP;
    float own = warp_max(x);
    sync_block();
    if (lane_id() == 0) {
        parts.set(warp_id(), own);
    }
    sync_block();
    return warp_max(lane_id() < num_warps ? parts.get(lane_id()) : -INFINITY);
}

DEVICE int min_of(int a, int b) { return a < b ? a : b; }
DEVICE int max_of(int a, int b) { return a > b ? a : b; }
DEVICE int div_up(int a, int b) { return (a + b - 1) / b; }
