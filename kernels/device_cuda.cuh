// The card's side of device.cuh: each wrapper is one instruction, or one built-in.
//
// Invariant: semantics are those that the emulator checks; nothing here has a branch of its own
// but for partial copies.
#pragma once

#include <math_constants.h>

// One block a multiprocessor at least: without it ptxas spills a few registers for more blocks.
#define KERNEL(name, Args, max_threads, ...)                                              \
    extern "C" __global__ void __launch_bounds__(max_threads, 1)                          \
        name(const __grid_constant__ Args args) {                                         \
        __VA_ARGS__(args);                                                                \
    }

#define SHARED_ARRAY(T, name, len)                                                        \
    __shared__ __align__(16) T name##_storage[len];                                       \
    Shared<T> name(name##_storage)

DEVICE int thread_id() { return threadIdx.x; }
DEVICE int lane_id() { return threadIdx.x % 32; }
DEVICE int warp_id() { return threadIdx.x / 32; }
DEVICE int num_threads() { return blockDim.x; }
DEVICE int block_x() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE int block_z() { return blockIdx.z; }
DEVICE int grid_x() { return gridDim.x; }

DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }

template <typename T>
DEVICE T shfl(T x, int lane) {
    return __shfl_sync(0xFFFFFFFFu, x, lane);
}
template <typename T>
DEVICE T shfl_xor(T x, int mask) {
    return __shfl_xor_sync(0xFFFFFFFFu, x, mask);
}
/// Lane `i` gets lane `i - delta`'s; the first lanes keep their own.
template <typename T>
DEVICE T shfl_up(T x, int delta) {
    return __shfl_up_sync(0xFFFFFFFFu, x, delta);
}
DEVICE uint32_t warp_ballot(bool p) { return __ballot_sync(0xFFFFFFFFu, p); }
DEVICE int count_bits(uint32_t x) { return __popc(x); }

/// Memory of the card.
template <typename T>
struct Global {
    T* at;
    DEVICE T get(int64_t i) const { return at[i]; }
    template <typename U>
    DEVICE void set(int64_t i, U x) const {
        at[i] = x;
    }
    /// Sixteen bytes from element `i` on, which is aligned to them.
    DEVICE auto get_pack(int64_t i) const {
        return *reinterpret_cast<const Pack<T>*>(at + i);
    }
    template <typename U>
    DEVICE void set_pack(int64_t i, const Pack<U>& x) const {
        *reinterpret_cast<Pack<U>*>(at + i) = x;
    }
    DEVICE Global<T> from(int64_t i) const { return Global<T>{at + i}; }
    DEVICE bool is_null() const { return at == nullptr; }
    template <typename U>
    DEVICE Global<U> cast() const {
        return Global<U>{reinterpret_cast<U*>(at)};
    }
};
template <typename T>
struct Global<const T> {
    const T* at;
    DEVICE T get(int64_t i) const { return at[i]; }
    DEVICE Pack<T> get_pack(int64_t i) const {
        return *reinterpret_cast<const Pack<T>*>(at + i);
    }
    DEVICE Global<const T> from(int64_t i) const { return Global<const T>{at + i}; }
    DEVICE bool is_null() const { return at == nullptr; }
    template <typename U>
    DEVICE Global<const U> cast() const {
        return Global<const U>{reinterpret_cast<const U*>(at)};
    }
};

/// Shared memory of the block.
template <typename T>
struct Shared {
    T* at;
    DEVICE Shared() : at(nullptr) {}
    DEVICE explicit Shared(T* at) : at(at) {}
    DEVICE T get(int i) const { return at[i]; }
    DEVICE void set(int i, T x) const { at[i] = x; }
    DEVICE Pack<T> get_pack(int i) const { return *reinterpret_cast<const Pack<T>*>(at + i); }
    DEVICE void set_pack(int i, const Pack<T>& x) const {
        *reinterpret_cast<Pack<T>*>(at + i) = x;
    }
    DEVICE Shared<T> from(int i) const { return Shared<T>(at + i); }
    DEVICE uint32_t address(int i) const {
        return uint32_t(__cvta_generic_to_shared(at + i));
    }
};

/// `len` elements of the launch's dynamic shared memory, from byte `offset` on.
template <typename T>
DEVICE Shared<T> dynamic_shared(int offset, int) {
    extern __shared__ __align__(128) unsigned char dynamic_storage[];
    return Shared<T>(reinterpret_cast<T*>(dynamic_storage + offset));
}

DEVICE void atomic_add(Shared<uint32_t> s, int i, uint32_t x) { atomicAdd(s.at + i, x); }
DEVICE void atomic_add(Shared<unsigned long long> s, int i, unsigned long long x) {
    atomicAdd(s.at + i, x);
}
DEVICE uint32_t atomic_add(Global<uint32_t> s, int64_t i, uint32_t x) {
    return atomicAdd(s.at + i, x);
}

/// Starts the copy of sixteen bytes, of which the first `num_bytes` come from memory and the rest
/// are zero. It lands at the wait for its group.
template <typename T, typename U>
DEVICE void cp_async16(Shared<T> to, int i, Global<const U> from, int64_t j, int num_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(to.address(i)), "l"(from.at + j), "r"(num_bytes)
                 : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most the `N` youngest groups of this thread are under way.
template <int N>
DEVICE void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/// Four 8x8 matrices of sixteen-bit elements; lane `8m + r` gives the address of row `r` of matrix
/// `m`.
template <typename T>
DEVICE void ldmatrix_x4(uint32_t (&r)[4], Shared<T> s, int i) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(s.address(i))
                 : "memory");
}
/// As `ldmatrix_x4`, each matrix transposed.
template <typename T>
DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], Shared<T> s, int i) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(s.address(i))
                 : "memory");
}
/// As `ldmatrix_x4` with two matrices, addressed by lanes 0 to 15.
template <typename T>
DEVICE void ldmatrix_x2(uint32_t (&r)[2], Shared<T> s, int i) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(s.address(i))
                 : "memory");
}

/// `c += a * b` for a 16x16 `a` and a 16x8 `b`.
template <typename T>
DEVICE void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
DEVICE void mma_m16n8k16<bf16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
DEVICE void mma_m16n8k16<f16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// `2^x`, within two units in the last place; 0 for minus infinity.
DEVICE float exp2_fast(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}
