// rope_kv_write: rotates q and k inside qkv by each row's position and writes k and v to the paged
// cache of one layer.
//
// qkv: [rows, num_heads + 2 num_kv_heads, head_dim] of T, rows `stride` elements apart, q and k
// rotated in place. cos, sin: [num_positions, rotary_dim / 2], f32. The first rotary_dim
// dimensions turn, `i` with `i + rotary_dim / 2` or, interleaved, `2i` with `2i + 1`.
// k_cache, v_cache: [blocks, num_kv_heads, block_size, head_stride] of KV, head_stride a multiple
// of eight, zero behind head_dim; what is too large for KV becomes its largest number.
// kv_slots: block * block_size + place of each row, or -1 for a row without one (padding).
// A position that the tables do not have makes the row's q and k NaN. A block a row.
// Source: Su et al. 2021.
#include "rows.cuh"

namespace rope_kv_write {

constexpr int THREADS = 128;

template <typename T, typename KV>
struct Args {
    Global<T> qkv;
    Global<const uint32_t> positions;
    Global<const int32_t> kv_slots;
    Global<const float> cos;
    Global<const float> sin;
    Global<KV> k_cache;
    Global<KV> v_cache;
    /// Elements from one block to the next.
    int64_t block_stride;
    uint32_t num_positions;
    uint32_t num_heads;
    uint32_t num_kv_heads;
    uint32_t head_dim;
    uint32_t head_stride;
    uint32_t block_size;
    uint32_t rotary_dim;
    uint32_t is_interleaved;
    uint32_t stride;
    uint32_t unused;
};

/// One row: where its numbers lie.
template <typename T, typename KV>
struct Row {
    const Args<T, KV>& args;
    Global<T> qkv;
    uint32_t position;
    int32_t slot;

    /// Element `i` of the cached head `head`.
    DEVICE int64_t cached(uint32_t head, int i) const {
        uint32_t block = uint32_t(slot) / args.block_size, place = uint32_t(slot) % args.block_size;
        return block * args.block_stride +
               int64_t(head * args.block_size + place) * args.head_stride + i;
    }

    /// Turns pair `pair` of head `head`, and stores it if the head is k's.
    DEVICE void rotate(uint32_t head, int pair) const {
        int half = int(args.rotary_dim) / 2;
        int i = args.is_interleaved ? 2 * pair : pair;
        int j = args.is_interleaved ? 2 * pair + 1 : pair + half;
        Global<T> x = qkv.from(int64_t(head) * args.head_dim);
        float a = to_f32(x.get(i)), b = to_f32(x.get(j));
        float turned_a = NAN, turned_b = NAN;
        if (position < args.num_positions) {
            int64_t angle = int64_t(position) * half + pair;
            float cos = args.cos.get(angle), sin = args.sin.get(angle);
            turned_a = fmaf(-b, sin, a * cos);
            turned_b = fmaf(a, sin, b * cos);
        }
        x.set(i, from_f32<T>(turned_a));
        x.set(j, from_f32<T>(turned_b));
        if (head >= args.num_heads && slot >= 0) {
            uint32_t kv_head = head - args.num_heads;
            // What later steps read is what this step's own attention would see.
            args.k_cache.set(cached(kv_head, i), rounded(turned_a));
            args.k_cache.set(cached(kv_head, j), rounded(turned_b));
        }
    }

    DEVICE KV rounded(float x) const { return from_f32_saturating<KV>(to_f32(from_f32<T>(x))); }

    /// Copies dimension `i` of a head of k that does not turn, or of v; behind the head: zero.
    DEVICE void copy(Global<KV> cache, uint32_t first_head, uint32_t kv_head, int i) const {
        KV x = from_f32<KV>(0.0f);
        if (i < int(args.head_dim)) {
            int64_t at = int64_t(first_head + kv_head) * args.head_dim + i;
            x = from_f32_saturating<KV>(to_f32(qkv.get(at)));
        }
        cache.set(cached(kv_head, i), x);
    }
};

template <typename T, typename KV>
DEVICE void run(const Args<T, KV>& args) {
    int row = block_x();
    Row<T, KV> r{args, args.qkv.from(int64_t(row) * args.stride), args.positions.get(row),
                 args.kv_slots.get(row)};
    int num_pairs = int(args.rotary_dim) / 2;
    int num_rotated = int(args.num_heads + args.num_kv_heads) * num_pairs;
    for (int i = thread_id(); i < num_rotated; i += THREADS) {
        r.rotate(uint32_t(i / num_pairs), i % num_pairs);
    }
    if (r.slot < 0) {
        return;
    }
    int num_kept = int(args.head_stride - args.rotary_dim);
    for (int i = thread_id(); i < int(args.num_kv_heads) * num_kept; i += THREADS) {
        r.copy(args.k_cache, args.num_heads, uint32_t(i / num_kept),
               int(args.rotary_dim) + i % num_kept);
    }
    int num_values = int(args.num_kv_heads * args.head_stride);
    for (int i = thread_id(); i < num_values; i += THREADS) {
        r.copy(args.v_cache, args.num_heads + args.num_kv_heads,
               uint32_t(i) / args.head_stride, i % int(args.head_stride));
    }
}

template <typename T, typename KV>
using A = Args<T, KV>;
using F32F16 = A<float, f16>;
using F32BF16 = A<float, bf16>;
using F16F16 = A<f16, f16>;
using F16BF16 = A<f16, bf16>;
using BF16F16 = A<bf16, f16>;
using BF16BF16 = A<bf16, bf16>;

KERNEL(rope_kv_write_f32_f16, F32F16, THREADS, run<float, f16>)
KERNEL(rope_kv_write_f32_bf16, F32BF16, THREADS, run<float, bf16>)
KERNEL(rope_kv_write_f16_f16, F16F16, THREADS, run<f16, f16>)
KERNEL(rope_kv_write_f16_bf16, F16BF16, THREADS, run<f16, bf16>)
KERNEL(rope_kv_write_bf16_f16, BF16F16, THREADS, run<bf16, f16>)
KERNEL(rope_kv_write_bf16_bf16, BF16BF16, THREADS, run<bf16, bf16>)

}  // namespace rope_kv_write
