// attention: paged, ragged and causal, for prefill chunks and decode rows alike.
//
// Query heads that share a key head are packed into the rows of one tile (GQA). A warp holds
// sixteen rows; keys and values come through cp.async, a tile ahead. q and the softmax's weights
// are rounded to the cache's dtype, products are mma.sync with f32 sums. Heads wider than 128 are
// computed by two warps, each for half of the values. Grid: items, key heads.
// Sources: Dao et al. 2022 and 2023 (tiling, online softmax); splits and their order: attention.cuh.
//
// Invariant: that of attention.cuh.
#include "attention.cuh"

namespace attention {

template <typename KV_, int D_, int ROW_WARPS_>
struct Shape {
    using KV = KV_;
    /// The head's width, rounded up.
    static constexpr int D = D_;
    static constexpr int ROW_WARPS = ROW_WARPS_;
    static constexpr int COLUMNS = D > 128 ? 2 : 1;
    /// Dimensions of values that a warp sums.
    static constexpr int DV = D / COLUMNS;
    static constexpr int THREADS = ROW_WARPS * COLUMNS * WARP;
    static constexpr int ROWS = ROW_WARPS * 16;
    static constexpr int KEYS = D > 128 ? 32 : 64;
    /// Eight more than a row has, so that eight rows lie in different banks.
    static constexpr int PITCH = D + 8;
    static constexpr int Q_LEN = ROWS * PITCH;
    static constexpr int TILE_LEN = KEYS * PITCH;
    static constexpr int LEN = Q_LEN + 4 * TILE_LEN;
};

/// A block's item, and the two rows of it that a lane has in its fragments.
template <typename S>
struct Work {
    Item item;
    int kv_head;
    int group;
    /// Keys that some row of the item sees.
    int first_key;
    int end_key;
    int position[2];

    DEVICE Work(const Args& args, const Item& item) : item(item), kv_head(block_y()) {
        group = int(args.num_heads / args.num_kv_heads);
        int last = int(item.position) + int(item.first_row + item.num_rows - 1) / group;
        int first = int(item.position) + int(item.first_row) / group;
        first_key = args.window > 0 ? max_of(0, first + 1 - int(args.window)) : 0;
        end_key = last + 1;
        for (int i = 0; i < 2; i++) {
            position[i] = min_of(int(item.position) + int(item.first_row + row(i)) / group, last);
        }
    }
    /// Row `i` of the lane's two, counted in the item.
    DEVICE int row(int i) const {
        return warp_id() / S::COLUMNS * 16 + lane_id() / 4 + 8 * i;
    }
    DEVICE uint32_t token(int row) const {
        return item.first_token + (item.first_row + uint32_t(row)) / uint32_t(group);
    }
    DEVICE int head(int row) const {
        return kv_head * group + int(item.first_row + uint32_t(row)) % group;
    }
};

template <typename S>
DEVICE void load_q(const Args& args, const Work<S>& work, Shared<typename S::KV> q) {
    using KV = typename S::KV;
    for (int i = thread_id(); i < S::ROWS * S::D; i += S::THREADS) {
        int row = i / S::D, column = i % S::D;
        KV x = from_f32<KV>(0.0f);
        if (row < int(work.item.num_rows) && column < int(args.head_dim)) {
            int64_t at = int64_t(work.token(row)) * args.qkv_stride +
                         int64_t(work.head(row)) * args.head_dim + column;
            x = from_f32_saturating<KV>(load_as(Dtype(args.dtype), args.qkv, at));
        }
        q.set(row * S::PITCH + column, x);
    }
}

/// Starts the copies of keys and values `key0` on. Keys that no row sees are zero: they may not
/// exist, or belong to another sequence by now.
template <typename S>
DEVICE void start_tile(const Args& args, const Work<S>& work, Shared<typename S::KV> tile,
                       int key0) {
    using KV = typename S::KV;
    constexpr int PIECES = S::D / 8;
    for (int i = thread_id(); i < S::KEYS * PIECES && key0 < work.end_key; i += S::THREADS) {
        int key = i / PIECES, column = i % PIECES * 8, position = key0 + key;
        int len = min_of(8, max_of(0, int(args.head_dim) - column)) * int(sizeof(KV));
        int64_t at = 0;
        if (position < work.first_key || position >= work.end_key || len == 0) {
            len = 0;
        } else {
            uint32_t block = args.block_tables.get(work.item.table_start +
                                                   uint32_t(position) / args.block_size);
            uint32_t place = uint32_t(position) % args.block_size;
            at = block * args.block_stride +
                 (int64_t(work.kv_head) * args.block_size + place) * args.head_stride + column;
        }
        int to = key * S::PITCH + column;
        cp_async16(tile, to, args.k_cache.cast<KV>(), at, len);
        cp_async16(tile, S::TILE_LEN + to, args.v_cache.cast<KV>(), at, len);
    }
    cp_async_commit();
}

/// Scores of a tile: q times keys.
template <typename S>
DEVICE void scores(float (&s)[S::KEYS / 8][4], Shared<typename S::KV> q,
                   Shared<typename S::KV> keys) {
    int lane = lane_id(), first_row = warp_id() / S::COLUMNS * 16;
#pragma unroll
    for (int k = 0; k < S::D / 16; k++) {
        uint32_t a[4];
        ldmatrix_x4(a, q, (first_row + lane % 16) * S::PITCH + k * 16 + lane / 16 * 8);
#pragma unroll
        for (int n = 0; n < S::KEYS / 16; n++) {
            uint32_t b[4];
            int key = n * 16 + lane / 16 * 8 + lane % 8;
            ldmatrix_x4(b, keys, key * S::PITCH + k * 16 + lane / 8 % 2 * 8);
            uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
            mma_m16n8k16<typename S::KV>(s[2 * n], a, left);
            mma_m16n8k16<typename S::KV>(s[2 * n + 1], a, right);
        }
    }
}

/// Scales, caps and masks a tile's scores; in powers of two.
template <typename S>
DEVICE void shape_scores(float (&s)[S::KEYS / 8][4], const Args& args, const Work<S>& work,
                         int key0) {
#pragma unroll
    for (int n = 0; n < S::KEYS / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int key = key0 + 8 * n + 2 * (lane_id() % 4) + i % 2, own = work.position[i / 2];
            float x = s[n][i] * args.scale;
            if (args.soft_cap > 0.0f) {
                x = args.soft_cap * tanhf(x / args.soft_cap);
            }
            bool sees = key <= own && (args.window == 0 || own - key < int(args.window));
            s[n][i] = sees ? x * LOG2_E : -INFINITY;
        }
    }
}

/// Turns scores into weights relative to the split's maximum so far, and shrinks what was summed
/// before. A lane's `sum` is of its own columns.
template <typename S>
DEVICE void weigh(float (&s)[S::KEYS / 8][4], State (&state)[2], float (&o)[S::DV / 8][4]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float max = state[i].max;
#pragma unroll
        for (int n = 0; n < S::KEYS / 8; n++) {
            max = s[n][2 * i] > max ? s[n][2 * i] : max;
            max = s[n][2 * i + 1] > max ? s[n][2 * i + 1] : max;
        }
#pragma unroll
        for (int mask = 1; mask < 4; mask *= 2) {
            float other = shfl_xor(max, mask);
            max = other > max ? other : max;
        }
        float base = max == -INFINITY ? 0.0f : max;
        float factor = exp2_fast(state[i].max - base), sum = state[i].sum * factor;
#pragma unroll
        for (int n = 0; n < S::KEYS / 8; n++) {
#pragma unroll
            for (int j = 2 * i; j < 2 * i + 2; j++) {
                s[n][j] = exp2_fast(s[n][j] - base);
                sum += s[n][j];
            }
        }
        state[i] = {max, sum};
#pragma unroll
        for (int n = 0; n < S::DV / 8; n++) {
            o[n][2 * i] *= factor;
            o[n][2 * i + 1] *= factor;
        }
    }
}

/// Adds the tile's weighted values.
template <typename S>
DEVICE void add_values(float (&o)[S::DV / 8][4], const float (&s)[S::KEYS / 8][4],
                       Shared<typename S::KV> values) {
    using KV = typename S::KV;
    int lane = lane_id(), first = warp_id() % S::COLUMNS * S::DV;
#pragma unroll
    for (int k = 0; k < S::KEYS / 16; k++) {
        uint32_t a[4] = {pack2<KV>(s[2 * k][0], s[2 * k][1]), pack2<KV>(s[2 * k][2], s[2 * k][3]),
                         pack2<KV>(s[2 * k + 1][0], s[2 * k + 1][1]),
                         pack2<KV>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < S::DV / 16; n++) {
            uint32_t b[4];
            int key = k * 16 + lane / 8 % 2 * 8 + lane % 8;
            ldmatrix_x4_trans(b, values, key * S::PITCH + first + n * 16 + lane / 16 * 8);
            uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
            mma_m16n8k16<KV>(o[2 * n], a, left);
            mma_m16n8k16<KV>(o[2 * n + 1], a, right);
        }
    }
}

/// Sums of values over the splits so far, or of one.
template <typename S>
struct Result {
    State state[2];
    float o[S::DV / 8][4];
};

/// Ends a split: adds it to `total` and starts the next from nothing.
template <typename S>
DEVICE void end_split(Result<S>& total, Result<S>& split) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        split.state[i].sum += shfl_xor(split.state[i].sum, 1);
        split.state[i].sum += shfl_xor(split.state[i].sum, 2);
        Factors factors = fold(total.state[i], split.state[i]);
#pragma unroll
        for (int n = 0; n < S::DV / 8; n++) {
#pragma unroll
            for (int j = 2 * i; j < 2 * i + 2; j++) {
                total.o[n][j] = fold_value(total.o[n][j], split.o[n][j], factors);
                split.o[n][j] = 0.0f;
            }
        }
        split.state[i] = {-INFINITY, 0.0f};
    }
}

/// Stores a lane's two rows: finished, or as a partial result.
template <typename S>
DEVICE void store_rows(const Args& args, const Work<S>& work, const Result<S>& result) {
    int head_dim = int(args.head_dim);
    int first = warp_id() % S::COLUMNS * S::DV + 2 * (lane_id() % 4);
    bool is_partial = work.item.partial != NO_PARTIAL;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = work.row(i);
        if (row >= int(work.item.num_rows)) {
            continue;
        }
        int64_t at = is_partial ? partial_at(args, work.item.partial, work.kv_head, row) : 0;
#pragma unroll
        for (int n = 0; n < S::DV / 8; n++) {
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int column = first + 8 * n + j;
                float x = result.o[n][2 * i + j];
                if (column >= head_dim) {
                    continue;
                }
                if (is_partial) {
                    args.partials.set(at + column, x);
                } else {
                    store(args, work.token(row), work.head(row), column, x, result.state[i].sum);
                }
            }
        }
        if (is_partial && first == 0) {
            args.partials.set(at + head_dim, result.state[i].max);
            args.partials.set(at + head_dim + 1, result.state[i].sum);
        }
    }
}

template <typename S>
DEVICE void clear(Result<S>& result) {
#pragma unroll
    for (int n = 0; n < S::DV / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            result.o[n][i] = 0.0f;
        }
    }
    result.state[0] = result.state[1] = {-INFINITY, 0.0f};
}

template <typename S>
DEVICE void run(const Args& args) {
    using KV = typename S::KV;
    Item item = item_at(args, block_x());
    if (item.num_rows == 0) {
        return;
    }
    Work<S> work(args, item);
    Shared<KV> q = dynamic_shared<KV>(0, S::LEN), tiles = q.from(S::Q_LEN);
    load_q<S>(args, work, q);
    Result<S> total, split;
    clear<S>(total);
    clear<S>(split);
    if (item.partial == NO_PARTIAL) {
        for (int i = 0; i < 2; i++) {
            int row = min_of(work.row(i), int(item.num_rows) - 1);
            total.state[i] = first_state(args, work.head(row));
        }
    }
    int key0 = max_of(int(item.first_split) * SPLIT, work.first_key / S::KEYS * S::KEYS);
    int end = min_of(int(item.end_split) * SPLIT, work.end_key);
    start_tile<S>(args, work, tiles, key0);
    for (int stage = 0; key0 < end; key0 += S::KEYS, stage ^= 1) {
        int next = key0 + S::KEYS < end ? key0 + S::KEYS : work.end_key;
        start_tile<S>(args, work, tiles.from((stage ^ 1) * 2 * S::TILE_LEN), next);
        cp_async_wait<1>();
        sync_block();
        Shared<KV> tile = tiles.from(stage * 2 * S::TILE_LEN);
        float s[S::KEYS / 8][4] = {};
        scores<S>(s, q, tile);
        shape_scores<S>(s, args, work, key0);
        weigh<S>(s, split.state, split.o);
        add_values<S>(split.o, s, tile.from(S::TILE_LEN));
        bool ends = (key0 + S::KEYS) % SPLIT == 0 || key0 + S::KEYS >= end;
        if (ends) {
            end_split<S>(total, split);
        }
        // Before the next tile but one is copied over this one.
        sync_block();
    }
    cp_async_wait<0>();
    store_rows<S>(args, work, total);
}

#define ATTENTION(name, KV, D)                                                               \
    using name##_##D##_1 = Shape<KV, D, 1>;                                                  \
    using name##_##D##_4 = Shape<KV, D, (D > 128 ? 2 : 4)>;                                  \
    KERNEL(attention_##name##_##D##_decode, Args, name##_##D##_1::THREADS, run<name##_##D##_1>) \
    KERNEL(attention_##name##_##D##_prefill, Args, name##_##D##_4::THREADS, run<name##_##D##_4>)

ATTENTION(f16, f16, 16)
ATTENTION(f16, f16, 32)
ATTENTION(f16, f16, 64)
ATTENTION(f16, f16, 96)
ATTENTION(f16, f16, 128)
ATTENTION(f16, f16, 256)
ATTENTION(bf16, bf16, 16)
ATTENTION(bf16, bf16, 32)
ATTENTION(bf16, bf16, 64)
ATTENTION(bf16, bf16, 96)
ATTENTION(bf16, bf16, 128)
ATTENTION(bf16, bf16, 256)

}  // namespace attention
