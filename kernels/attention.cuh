// What the attention kernel and its merge share: arguments, work items, and how one split's result
// is added to those before it.
//
// A row (one query head of one token) sees keys 0 to its own position, or the last `window` of
// them. Keys are cut into splits of SPLIT counted from position 0. Each split is computed from
// nothing, tile after tile, and added to the splits before it in index order. A work item computes
// either all splits of its rows, one after the other, or a single split, whose result `merge` adds.
// A tile or split in which a row sees nothing changes no bit of that row.
//
// Invariant: a row's bits are a function of its q and of the keys and values it sees; not of the
// item it is in, of the items beside it, or of the number of blocks.
#pragma once

#include "activations.cuh"

namespace attention {

constexpr int SPLIT = 256;
constexpr uint32_t NO_PARTIAL = 0xFFFFFFFFu;
constexpr float LOG2_E = 1.4426950408889634f;

/// The struct of the host's `Attention`.
struct Args {
    /// [tokens, (num_heads + 2 num_kv_heads) * head_dim]: q first, rotated.
    Global<const uint8_t> qkv;
    /// [tokens, num_heads * head_dim].
    Global<uint8_t> out;
    /// [blocks, num_kv_heads, block_size, head_stride].
    Global<const uint8_t> k_cache;
    Global<const uint8_t> v_cache;
    Global<const uint32_t> block_tables;
    /// Eight words each: `Item` or `MergeItem`.
    Global<const uint32_t> items;
    /// [partials, num_kv_heads, partial_rows, head_dim + 2]: sums, then maximum, then weight.
    Global<float> partials;
    /// One for each query head, or null.
    Global<const float> sinks;
    int64_t block_stride;
    uint32_t num_heads;
    uint32_t num_kv_heads;
    uint32_t head_dim;
    uint32_t head_stride;
    uint32_t block_size;
    uint32_t qkv_stride;
    uint32_t out_stride;
    uint32_t partial_rows;
    /// 0: all.
    uint32_t window;
    /// Of qkv and out.
    uint32_t dtype;
    float scale;
    /// 0: none.
    float soft_cap;
};

/// Rows of one sequence. Row `i` of it is query head `i % group` of token `i / group`.
struct Item {
    uint32_t first_token;
    /// Position of that token.
    uint32_t position;
    uint32_t first_row;
    /// 0: nothing to do.
    uint32_t num_rows;
    /// Start of the sequence's blocks in block_tables.
    uint32_t table_start;
    uint32_t first_split;
    uint32_t end_split;
    /// Where the one split's result goes; NO_PARTIAL: all splits are here.
    uint32_t partial;
};

DEVICE Item item_at(const Args& args, int i) {
    Item item;
    item.first_token = args.items.get(8 * i);
    item.position = args.items.get(8 * i + 1);
    item.first_row = args.items.get(8 * i + 2);
    item.num_rows = args.items.get(8 * i + 3);
    item.table_start = args.items.get(8 * i + 4);
    item.first_split = args.items.get(8 * i + 5);
    item.end_split = args.items.get(8 * i + 6);
    item.partial = args.items.get(8 * i + 7);
    return item;
}

/// A row's maximum score (in powers of two) and sum of weights relative to it.
struct State {
    float max;
    float sum;
};

/// Before the first split. A sink is a key that came before all others, whose value is zero.
DEVICE State first_state(const Args& args, int head) {
    if (args.sinks.is_null()) {
        return {-INFINITY, 0.0f};
    }
    return {args.sinks.get(head) * LOG2_E, 1.0f};
}

/// Adds `split` to `state`; the sums of values are to be multiplied by the two factors.
struct Factors {
    float before;
    float split;
};
DEVICE Factors fold(State& state, const State& split) {
    float max = split.max > state.max ? split.max : state.max;
    float base = max == -INFINITY ? 0.0f : max;
    Factors factors{exp2_fast(state.max - base), exp2_fast(split.max - base)};
    state.sum = fmaf(split.sum, factors.split, state.sum * factors.before);
    state.max = max;
    return factors;
}

DEVICE float fold_value(float before, float split, const Factors& factors) {
    return fmaf(split, factors.split, before * factors.before);
}

/// Where row `row` of an item's partial result is.
DEVICE int64_t partial_at(const Args& args, uint32_t partial, int kv_head, int row) {
    int64_t index = (int64_t(partial) * args.num_kv_heads + kv_head) * args.partial_rows + row;
    return index * (args.head_dim + 2);
}

/// A finished element: minus zero becomes zero, which a tile without keys would make it.
DEVICE void store(const Args& args, uint32_t token, int head, int i, float x, float sum) {
    int64_t at = int64_t(token) * args.out_stride + int64_t(head) * args.head_dim + i;
    store_as(Dtype(args.dtype), args.out, at, x / sum + 0.0f);
}

}  // namespace attention
