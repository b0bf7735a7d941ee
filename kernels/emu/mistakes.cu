// One small kernel for each mistake that the emulator has to catch, and a clean one beside it.
//
// Each does the same thing, reversing what a block reads, and gets one thing wrong.
//
// Invariant: `clean` passes; every other kernel ends with the message that its test names.
#include "../device.cuh"

namespace mistakes {

struct Args {
    Global<const float> x;
    Global<float> out;
};

constexpr int THREADS = 64;

/// Writes, waits, reads what another thread wrote.
DEVICE void clean(const Args& args) {
    SHARED_ARRAY(float, values, THREADS);
    int i = thread_id();
    values.set(i, args.x.get(i));
    sync_block();
    args.out.set(i, values.get(THREADS - 1 - i));
}

DEVICE void missing_barrier(const Args& args) {
    SHARED_ARRAY(float, values, THREADS);
    int i = thread_id();
    values.set(i, args.x.get(i));
    args.out.set(i, values.get(i ^ 1));
}

/// A barrier of the warp, where threads of the other warp are read from.
DEVICE void narrow_barrier(const Args& args) {
    SHARED_ARRAY(float, values, THREADS);
    int i = thread_id();
    values.set(i, args.x.get(i));
    sync_warp();
    args.out.set(i, values.get(THREADS - 1 - i));
}

/// Overwrites what others may still be reading.
DEVICE void write_after_read(const Args& args) {
    SHARED_ARRAY(float, values, THREADS);
    int i = thread_id();
    values.set(i, args.x.get(i));
    sync_block();
    float x = values.get(THREADS - 1 - i);
    values.set(i, x + 1.0f);
    args.out.set(i, x);
}

template <bool COMMITS, bool WAITS, bool SYNCS>
DEVICE void copies(const Args& args) {
    Shared<float> values = dynamic_shared<float>(0, THREADS);
    int i = thread_id();
    if (i < THREADS / 4) {
        cp_async16(values, 4 * i, args.x, 4 * i, 16);
    }
    if (COMMITS) {
        cp_async_commit();
    }
    if (WAITS) {
        cp_async_wait<0>();
    }
    if (SYNCS) {
        sync_block();
    }
    args.out.set(i, values.get(THREADS - 1 - i));
}

DEVICE void read_out_of_bounds(const Args& args) {
    int i = thread_id();
    args.out.set(i, args.x.get(i + 1));
}

DEVICE void write_out_of_bounds(const Args& args) {
    int i = thread_id();
    args.out.set(i - 1, args.x.get(i));
}

DEVICE void write_to_input(const Args& args) {
    Global<float> x{const_cast<float*>(args.x.at)};
    x.set(thread_id(), 1.0f);
}

DEVICE void misaligned_pack(const Args& args) {
    int i = thread_id();
    if (i < THREADS / 4 - 1) {
        args.out.set_pack(4 * i, args.x.get_pack(4 * i + 1));
    }
}

DEVICE void misaligned_shared_pack(const Args& args) {
    SHARED_ARRAY(float, values, THREADS);
    int i = thread_id();
    values.set(i, args.x.get(i));
    sync_block();
    if (i < THREADS / 4 - 1) {
        args.out.set_pack(4 * i, values.get_pack(4 * i + 2));
    }
}

DEVICE void shared_out_of_bounds(const Args& args) {
    SHARED_ARRAY(float, values, THREADS);
    int i = thread_id();
    values.set(i + 1, args.x.get(i));
}

DEVICE void divergent_shuffle(const Args& args) {
    int i = thread_id();
    float x = args.x.get(i);
    if (lane_id() < 16) {
        x = shfl_xor(x, 1);
    }
    sync_block();
    args.out.set(i, x);
}

/// Both halves shuffle, but not together.
DEVICE void unlike_shuffles(const Args& args) {
    int i = thread_id();
    float x = args.x.get(i);
    if (lane_id() < 16) {
        x = shfl_xor(x, 1);
    } else {
        x = shfl_xor(x, 2);
    }
    args.out.set(i, x);
}

DEVICE void leaves_before_barrier(const Args& args) {
    int i = thread_id();
    if (i == 5) {
        return;
    }
    sync_block();
    args.out.set(i, args.x.get(i));
}

DEVICE void divergent_barriers(const Args& args) {
    int i = thread_id();
    if (warp_id() == 0) {
        sync_block();
    } else {
        sync_block();
    }
    args.out.set(i, args.x.get(i));
}

DEVICE void unwritten_shared(const Args& args) {
    SHARED_ARRAY(float, values, THREADS);
    int i = thread_id();
    if (i != 7) {
        values.set(i, args.x.get(i));
    }
    sync_block();
    args.out.set(i, values.get(THREADS - 1 - i));
}

DEVICE void too_much_static(const Args& args) {
    SHARED_ARRAY(float, values, 13 * 1024);
    int i = thread_id();
    values.set(i, args.x.get(i));
    args.out.set(i, values.get(i));
}

/// What the dynamic memory of the launch leaves is not enough.
DEVICE void static_beside_dynamic(const Args& args) {
    SHARED_ARRAY(float, values, 1024);
    int i = thread_id();
    values.set(i, args.x.get(i));
    args.out.set(i, values.get(i));
}

/// Counting with atomics needs no barrier between the additions, but one before the result.
template <bool SYNCS>
DEVICE void count(const Args& args) {
    SHARED_ARRAY(uint32_t, counter, 1);
    int i = thread_id();
    if (i == 0) {
        counter.set(0, 0);
    }
    sync_block();
    atomic_add(counter, 0, uint32_t(i));
    if (SYNCS) {
        sync_block();
    }
    args.out.set(i, float(counter.get(0)) + args.x.get(i));
}

enum class Barrier { None, Warp, Block };

template <Barrier KIND>
DEVICE void wait_for_others() {
    if (KIND == Barrier::Block) {
        sync_block();
    } else if (KIND == Barrier::Warp) {
        sync_warp();
    }
}

/// As `clean`, by way of global memory: a barrier before others read, and one before the overwrite.
template <Barrier BEFORE_READ, Barrier BEFORE_WRITE>
DEVICE void in_place(const Args& args) {
    int i = thread_id();
    args.out.set(i, args.x.get(i));
    wait_for_others<BEFORE_READ>();
    float x = args.out.get(THREADS - 1 - i);
    wait_for_others<BEFORE_WRITE>();
    args.out.set(i, x);
}

/// Neighbours in a warp: its barrier is enough.
template <Barrier KIND>
DEVICE void in_warp(const Args& args) {
    int i = thread_id();
    args.out.set(i, args.x.get(i));
    wait_for_others<KIND>();
    float x = args.out.get(i ^ 1);
    wait_for_others<KIND>();
    args.out.set(i, x);
}

/// A copy from what others wrote, and one that others overwrite before it has landed.
template <Barrier BEFORE_COPY, bool WAITS>
DEVICE void copy_of_output(const Args& args) {
    Shared<float> values = dynamic_shared<float>(0, THREADS);
    int i = thread_id();
    args.out.set(i, args.x.get(i));
    wait_for_others<BEFORE_COPY>();
    if (i < THREADS / 4) {
        cp_async16(values, 4 * i, Global<const float>{args.out.at}, 4 * i, 16);
    }
    cp_async_commit();
    if (WAITS) {
        cp_async_wait<0>();
    }
    sync_block();
    args.out.set(i, 2.0f * args.x.get(i));
    cp_async_wait<0>();
    sync_block();
    args.out.set(i, values.get(THREADS - 1 - i));
}

/// Blocks have no order: right for one block, or where each has its own place.
DEVICE void blocks_write(const Args& args) {
    int i = thread_id();
    args.out.set(i, args.x.get(i) + float(block_x()));
}
DEVICE void blocks_write_the_same(const Args& args) {
    int i = thread_id();
    args.out.set(i, args.x.get(i));
}
DEVICE void blocks_write_apart(const Args& args) {
    int i = thread_id(), half = THREADS / 2;
    if (i < half) {
        args.out.set(block_x() * half + i, args.x.get(i));
    }
}

/// Each block reads what the other, or somebody, writes.
DEVICE void block_reads_other(const Args& args) {
    int i = thread_id(), half = THREADS / 2;
    if (i < half) {
        float x = args.out.get((1 - block_x()) * half + i);
        args.out.set(block_x() * half + i, args.x.get(i) + (x == x ? 0.0f : 1.0f));
    }
}
DEVICE void last_block_writes(const Args& args) {
    int i = thread_id();
    float x = args.out.get(i);
    if (block_x() == 1) {
        args.out.set(i, x == x ? 0.0f : args.x.get(i));
    }
}

/// Counting in global memory over all blocks; the sum may be read by later launches alone.
template <bool READS>
DEVICE void count_globally(const Args& args) {
    Global<uint32_t> out = args.out.cast<uint32_t>();
    if (thread_id() > 0) {
        atomic_add(out, 0, 1);
    }
    sync_block();
    if (READS) {
        out.set(1 + block_x(), out.get(0));
    }
}

/// One of everything that works on fragments, checked against sums by hand.
DEVICE void matrices(const Args& args) {
    SHARED_ARRAY(bf16, a, 16 * 16);
    SHARED_ARRAY(bf16, b, 8 * 16);
    int i = thread_id();
    if (i >= WARP) {
        return;
    }
    for (int e = i; e < 16 * 16; e += WARP) {
        a.set(e, from_f32<bf16>(float(e % 7) - 3.0f));
    }
    for (int e = i; e < 8 * 16; e += WARP) {
        b.set(e, from_f32<bf16>(float(e % 5) - 2.0f));
    }
    sync_warp();
    uint32_t fa[4], fb[2];
    // Lanes 0 to 15 give rows 0 to 15 of the left half, the others those of the right.
    ldmatrix_x4(fa, a, (i % 16) * 16 + (i / 16) * 8);
    ldmatrix_x2(fb, b, (i % 8) * 16 + (i / 8 % 2) * 8);
    float c[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    mma_m16n8k16<bf16>(c, fa, fb);
    // Of the sixteen by eight sums, the first half.
    for (int e = 0; e < 2; e++) {
        args.out.set(i / 4 * 8 + 2 * (i % 4) + e, c[e]);
    }
}

KERNEL(mistake_none, Args, THREADS, clean)
KERNEL(mistake_missing_barrier, Args, THREADS, missing_barrier)
KERNEL(mistake_narrow_barrier, Args, THREADS, narrow_barrier)
KERNEL(mistake_write_after_read, Args, THREADS, write_after_read)
KERNEL(mistake_none_async, Args, THREADS, copies<true, true, true>)
KERNEL(mistake_missing_wait, Args, THREADS, copies<true, false, true>)
KERNEL(mistake_missing_commit, Args, THREADS, copies<false, true, true>)
KERNEL(mistake_wait_without_barrier, Args, THREADS, copies<true, true, false>)
KERNEL(mistake_read_out_of_bounds, Args, THREADS, read_out_of_bounds)
KERNEL(mistake_write_out_of_bounds, Args, THREADS, write_out_of_bounds)
KERNEL(mistake_write_to_input, Args, THREADS, write_to_input)
KERNEL(mistake_misaligned_pack, Args, THREADS, misaligned_pack)
KERNEL(mistake_misaligned_shared_pack, Args, THREADS, misaligned_shared_pack)
KERNEL(mistake_shared_out_of_bounds, Args, THREADS, shared_out_of_bounds)
KERNEL(mistake_divergent_shuffle, Args, THREADS, divergent_shuffle)
KERNEL(mistake_unlike_shuffles, Args, THREADS, unlike_shuffles)
KERNEL(mistake_leaves_before_barrier, Args, THREADS, leaves_before_barrier)
KERNEL(mistake_divergent_barriers, Args, THREADS, divergent_barriers)
KERNEL(mistake_unwritten_shared, Args, THREADS, unwritten_shared)
KERNEL(mistake_too_much_static, Args, THREADS, too_much_static)
KERNEL(mistake_static_beside_dynamic, Args, THREADS, static_beside_dynamic)
KERNEL(mistake_none_atomic, Args, THREADS, count<true>)
KERNEL(mistake_atomic_without_barrier, Args, THREADS, count<false>)
using B = Barrier;
KERNEL(mistake_none_in_place, Args, THREADS, in_place<B::Block, B::Block>)
KERNEL(mistake_global_read_early, Args, THREADS, in_place<B::None, B::Block>)
KERNEL(mistake_global_narrow_barrier, Args, THREADS, in_place<B::Warp, B::Block>)
KERNEL(mistake_global_write_early, Args, THREADS, in_place<B::Block, B::None>)
KERNEL(mistake_none_in_warp, Args, THREADS, in_warp<B::Warp>)
KERNEL(mistake_global_in_warp, Args, THREADS, in_warp<B::None>)
KERNEL(mistake_none_copied, Args, THREADS, copy_of_output<B::Block, true>)
KERNEL(mistake_global_copied_early, Args, THREADS, copy_of_output<B::None, true>)
KERNEL(mistake_global_overwritten_early, Args, THREADS, copy_of_output<B::Block, false>)
KERNEL(mistake_blocks_write, Args, THREADS, blocks_write)
KERNEL(mistake_none_blocks_write_the_same, Args, THREADS, blocks_write_the_same)
KERNEL(mistake_none_blocks_write_apart, Args, THREADS, blocks_write_apart)
KERNEL(mistake_block_reads_other, Args, THREADS, block_reads_other)
KERNEL(mistake_last_block_writes, Args, THREADS, last_block_writes)
KERNEL(mistake_none_count_globally, Args, THREADS, count_globally<false>)
KERNEL(mistake_count_read_early, Args, THREADS, count_globally<true>)
KERNEL(mistake_none_matrices, Args, THREADS, matrices)

}  // namespace mistakes
