// Mixture of experts: routing, the order of rows by expert, and the sum of the experts' results.
//
// moe_route: router logits [rows, num_experts] of T to routes of the same shape in f32: the softmax
// over all experts, kept for the `num_chosen` largest (of equals the first; divided by their sum
// if asked for) and zero for the others. A warp a row. A row of NaN keeps some, so that its
// sequence fails.
// moe_plan: from routes to pairs (expert, row), experts in order and rows in order within each:
// offsets [num_experts + 1], pair_rows [pairs], and pair_of [rows, num_experts], the place of a
// row's pair. One block.
// moe_combine: `out[r]` = the sum over r's experts, in order, of route times the pair's result.
// The products between are linear by groups (linear_skinny.cu, linear_tile.cu).
//
// Invariant: a row's result depends on that row and its routes alone.
#include "rows.cuh"

namespace moe {

constexpr int THREADS = 128;
constexpr int PLAN_THREADS = 1024;
constexpr float TAKEN = -1.0f;

/// The struct of the host's `Moe`.
struct Args {
    Global<const uint8_t> logits;
    Global<float> routes;
    Global<uint32_t> offsets;
    Global<uint32_t> pair_rows;
    Global<uint32_t> pair_of;
    Global<const uint8_t> pairs;
    Global<uint8_t> out;
    uint32_t num_rows;
    uint32_t num_experts;
    uint32_t num_chosen;
    uint32_t normalises;
    /// Elements.
    uint32_t logits_stride;
    uint32_t width;
    /// Of a row of `pairs` and of `out`.
    uint32_t stride;
    uint32_t unused;
};

/// A candidate of a search over a warp: the larger weight, of equals the lower index.
struct Best {
    float weight;
    int index;

    DEVICE void offer(float w, int i) {
        // A NaN is taken where nothing was found before.
        bool is_better = w > weight || (w == weight && i < index) || (w != w && weight == TAKEN);
        if (is_better) {
            weight = w;
            index = i;
        }
    }
};

DEVICE Best best_of_warp(Best best) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        float weight = shfl_xor(best.weight, mask);
        int index = shfl_xor(best.index, mask);
        best.offer(weight, index);
    }
    // Lanes may have met NaN in different orders.
    best.weight = shfl(best.weight, 0);
    best.index = shfl(best.index, 0);
    return best;
}

template <typename T>
DEVICE void route(const Args& args) {
    int row = block_x() * (THREADS / WARP) + warp_id(), experts = int(args.num_experts);
    if (row >= int(args.num_rows)) {
        return;
    }
    Global<const T> logits = args.logits.cast<T>().from(int64_t(row) * args.logits_stride);
    Global<float> routes = args.routes.from(int64_t(row) * experts);
    float max = -INFINITY;
    for (int e = lane_id(); e < experts; e += WARP) {
        float x = to_f32(logits.get(e));
        max = x > max ? x : max;
    }
    max = warp_max(max);
    float sum = 0.0f;
    for (int e = lane_id(); e < experts; e += WARP) {
        sum += expf(to_f32(logits.get(e)) - max);
    }
    sum = warp_sum(sum);
    // Weights that are still to be chosen from lie in routes, each lane reading its own.
    for (int e = lane_id(); e < experts; e += WARP) {
        routes.set(e, expf(to_f32(logits.get(e)) - max) / sum);
    }
    // Lane c remembers choice c.
    Best own{0.0f, -1};
    float total = 0.0f;
    for (int choice = 0; choice < int(args.num_chosen); choice++) {
        Best best{TAKEN, 0};
        for (int e = lane_id(); e < experts; e += WARP) {
            best.offer(routes.get(e), e);
        }
        best = best_of_warp(best);
        total += best.weight;
        if (lane_id() == choice) {
            own = best;
        }
        if (best.index % WARP == lane_id()) {
            routes.set(best.index, TAKEN);
        }
    }
    if (!args.normalises) {
        total = 1.0f;
    }
    // Each lane clears its own experts, then gets those of them that were chosen.
    for (int e = lane_id(); e < experts; e += WARP) {
        routes.set(e, 0.0f);
    }
    for (int choice = 0; choice < int(args.num_chosen); choice++) {
        int index = shfl(own.index, choice);
        float weight = shfl(own.weight, choice);
        if (index % WARP == lane_id()) {
            routes.set(index, weight / total);
        }
    }
}

/// A warp an expert at a time: rows are counted, then placed, in order.
DEVICE void plan(const Args& args) {
    SHARED_ARRAY(uint32_t, counts, 1025);
    int experts = int(args.num_experts), rows = int(args.num_rows);
    int num_warps = PLAN_THREADS / WARP;
    for (int e = warp_id(); e < experts; e += num_warps) {
        uint32_t count = 0;
        for (int first = 0; first < rows; first += WARP) {
            int row = first + lane_id();
            bool chosen = row < rows && args.routes.get(int64_t(row) * experts + e) != 0.0f;
            count += uint32_t(count_bits(warp_ballot(chosen)));
        }
        if (lane_id() == 0) {
            counts.set(e + 1, count);
        }
    }
    sync_block();
    if (thread_id() == 0) {
        counts.set(0, 0);
        for (int e = 0; e < experts; e++) {
            counts.set(e + 1, counts.get(e) + counts.get(e + 1));
        }
    }
    sync_block();
    for (int e = thread_id(); e <= experts; e += PLAN_THREADS) {
        args.offsets.set(e, counts.get(e));
    }
    for (int e = warp_id(); e < experts; e += num_warps) {
        uint32_t next = counts.get(e);
        for (int first = 0; first < rows; first += WARP) {
            int row = first + lane_id();
            bool chosen = row < rows && args.routes.get(int64_t(row) * experts + e) != 0.0f;
            uint32_t votes = warp_ballot(chosen);
            if (chosen) {
                uint32_t place =
                    next + uint32_t(count_bits(votes & ((1u << lane_id()) - 1)));
                args.pair_rows.set(place, uint32_t(row));
                args.pair_of.set(int64_t(row) * experts + e, place);
            }
            next += uint32_t(count_bits(votes));
        }
    }
}

template <typename T>
DEVICE void combine(const Args& args) {
    constexpr int LEN = Pack<T>::LEN;
    int row = block_x(), experts = int(args.num_experts), width = int(args.width);
    int i = (block_y() * THREADS + thread_id()) * LEN;
    if (i >= width) {
        return;
    }
    float sum[LEN] = {};
    for (int e = 0; e < experts; e++) {
        float weight = args.routes.get(int64_t(row) * experts + e);
        if (weight == 0.0f) {
            continue;
        }
        int64_t pair = args.pair_of.get(int64_t(row) * experts + e);
        float x[LEN];
        load_pack<T>(x, args.pairs.cast<T>().from(pair * args.stride), i, width);
#pragma unroll
        for (int j = 0; j < LEN; j++) {
            sum[j] = fmaf(x[j], weight, sum[j]);
        }
    }
    store_pack<T>(args.out.cast<T>().from(int64_t(row) * args.stride), i, width, sum);
}

KERNEL(moe_route_f32, Args, THREADS, route<float>)
KERNEL(moe_route_f16, Args, THREADS, route<f16>)
KERNEL(moe_route_bf16, Args, THREADS, route<bf16>)
KERNEL(moe_plan, Args, PLAN_THREADS, plan)
KERNEL(moe_combine_f32, Args, THREADS, combine<float>)
KERNEL(moe_combine_f16, Args, THREADS, combine<f16>)
KERNEL(moe_combine_bf16, Args, THREADS, combine<bf16>)

}  // namespace moe
