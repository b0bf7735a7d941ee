// The host's side of device.cuh: the same names as on the card, each checked.
//
// Invariant: a kernel that passes here touches only memory that it may touch, shared and global, in
// an order that barriers give it.
#pragma once

#include <math.h>

#include "collectives.h"

#define KERNEL(name, Args, max_threads, ...)                                              \
    static void name##_entry(const void* args) {                                          \
        __VA_ARGS__(*static_cast<const Args*>(args));                                     \
    }                                                                                     \
    static ::emu::Registration name##_registration(#name, name##_entry, sizeof(Args), max_threads);

#define SHARED_ARRAY(T, name, len)                                                        \
    static const char name##_site = 0;                                                    \
    Shared<T> name = Shared<T>::at_offset(                                                \
        ::emu::static_shared(&name##_site, sizeof(T) * (len)), sizeof(T) * (len))

inline int thread_id() { return emu::current->fiber->thread; }
inline int lane_id() { return emu::current->fiber->lane; }
inline int warp_id() { return emu::current->fiber->warp; }
inline int num_threads() { return emu::current->num_threads; }
inline int block_x() { return int(emu::current->block[0]); }
inline int block_y() { return int(emu::current->block[1]); }
inline int block_z() { return int(emu::current->block[2]); }
inline int grid_x() { return int(emu::current->grid[0]); }
inline int count_bits(uint32_t x) { return __builtin_popcount(x); }
inline float exp2_fast(float x) { return exp2f(x); }

/// The caller's line is part of what has to agree.
inline void sync_block(int line = __builtin_LINE()) { emu::wait_for_block(line); }
inline void sync_warp(int line = __builtin_LINE()) {
    emu::wait_for_warp(emu::SYNC, nullptr, 0, line);
}

template <typename T>
T shfl(T x, int lane, int line = __builtin_LINE()) {
    return emu::shuffle_lanes(emu::SHFL, x, lane, line);
}
template <typename T>
T shfl_xor(T x, int mask, int line = __builtin_LINE()) {
    return emu::shuffle_lanes(emu::SHFL, x, emu::current->fiber->lane ^ mask, line);
}
template <typename T>
T shfl_up(T x, int delta, int line = __builtin_LINE()) {
    int own = emu::current->fiber->lane;
    return emu::shuffle_lanes(emu::SHFL, x, own < delta ? own : own - delta, line);
}
inline uint32_t warp_ballot(bool p, int line = __builtin_LINE()) {
    emu::BallotLane lane{p, 0};
    emu::wait_for_warp(emu::BALLOT, &lane, 0, line);
    return lane.result;
}

/// Memory of the card: a pointer, in the arguments of a kernel too.
template <typename T>
struct Global {
    T* at;
    T get(int64_t i) const {
        emu::check_global(at + i, sizeof(T), alignof(T), emu::Access::Read);
        return at[i];
    }
    template <typename U>
    void set(int64_t i, U x) const {
        T value = x;
        emu::check_global(at + i, sizeof(T), alignof(T), emu::Access::Write, &value);
        at[i] = value;
    }
    template <typename U = T>
    Pack<U> get_pack(int64_t i) const {
        return Global<const U>{at}.get_pack(i);
    }
    template <typename U>
    void set_pack(int64_t i, const Pack<U>& x) const {
        emu::check_global(at + i, 16, 16, emu::Access::Write, &x);
        memcpy(at + i, &x, 16);
    }
    Global<T> from(int64_t i) const { return Global<T>{at + i}; }
    bool is_null() const { return at == nullptr; }
    template <typename U>
    Global<U> cast() const {
        return Global<U>{reinterpret_cast<U*>(at)};
    }
};
template <typename T>
struct Global<const T> {
    const T* at;
    T get(int64_t i) const {
        emu::check_global(at + i, sizeof(T), alignof(T), emu::Access::Read);
        return at[i];
    }
    Pack<T> get_pack(int64_t i) const {
        emu::check_global(at + i, 16, 16, emu::Access::Read);
        Pack<T> pack;
        memcpy(&pack, at + i, 16);
        return pack;
    }
    Global<const T> from(int64_t i) const { return Global<const T>{at + i}; }
    bool is_null() const { return at == nullptr; }
    template <typename U>
    Global<const U> cast() const {
        return Global<const U>{reinterpret_cast<const U*>(at)};
    }
};

/// Shared memory of the block: an offset, and the end of the array it belongs to.
template <typename T>
struct Shared {
    size_t start = 0;
    size_t end = 0;
    static Shared<T> at_offset(size_t offset, size_t num_bytes) {
        Shared<T> shared;
        shared.start = offset;
        shared.end = offset + num_bytes;
        return shared;
    }
    size_t offset(int64_t i, size_t num_bytes) const {
        int64_t at = int64_t(start) + i * int64_t(sizeof(T));
        if (at < 0 || size_t(at) + num_bytes > end) {
            emu::fail("shared access of %zu bytes out of bounds: element %lld of an array of %zu",
                      num_bytes, (long long)i, (end - start) / sizeof(T));
        }
        return size_t(at);
    }
    T get(int i) const {
        size_t at = offset(i, sizeof(T));
        emu::check_shared(*emu::current->fiber, at, sizeof(T), alignof(T), emu::Access::Read);
        T x;
        memcpy(&x, emu::current->arena + at, sizeof(T));
        return x;
    }
    void set(int i, T x) const {
        size_t at = offset(i, sizeof(T));
        emu::check_shared(*emu::current->fiber, at, sizeof(T), alignof(T), emu::Access::Write);
        memcpy(emu::current->arena + at, &x, sizeof(T));
    }
    Pack<T> get_pack(int i) const {
        size_t at = offset(i, 16);
        emu::check_shared(*emu::current->fiber, at, 16, 16, emu::Access::Read);
        Pack<T> pack;
        memcpy(&pack, emu::current->arena + at, 16);
        return pack;
    }
    void set_pack(int i, const Pack<T>& x) const {
        size_t at = offset(i, 16);
        emu::check_shared(*emu::current->fiber, at, 16, 16, emu::Access::Write);
        memcpy(emu::current->arena + at, &x, 16);
    }
    Shared<T> from(int i) const {
        Shared<T> rest = *this;
        rest.start = start + size_t(i) * sizeof(T);
        return rest;
    }
};

template <typename T>
Shared<T> dynamic_shared(int offset, int len) {
    size_t num_bytes = size_t(len) * sizeof(T);
    return Shared<T>::at_offset(emu::dynamic_shared_at(size_t(offset), num_bytes), num_bytes);
}

template <typename T>
void atomic_add(Shared<T> s, int i, T x) {
    size_t at = s.offset(i, sizeof(T));
    emu::check_shared(*emu::current->fiber, at, sizeof(T), alignof(T), emu::Access::Atomic);
    T sum;
    memcpy(&sum, emu::current->arena + at, sizeof(T));
    sum += x;
    memcpy(emu::current->arena + at, &sum, sizeof(T));
}
inline uint32_t atomic_add(Global<uint32_t> s, int64_t i, uint32_t x) {
    emu::check_global(s.at + i, 4, 4, emu::Access::Atomic);
    uint32_t before = s.at[i];
    s.at[i] = before + x;
    return before;
}

template <typename T, typename U>
void cp_async16(Shared<T> to, int i, Global<const U> from, int64_t j, int num_bytes) {
    emu::start_copy(to.offset(i, 16), from.at + j, num_bytes);
}
inline void cp_async_commit() { emu::commit_copies(); }
template <int N>
void cp_async_wait() {
    emu::wait_for_copies(N);
}

template <typename T>
void ldmatrix_x4(uint32_t (&r)[4], Shared<T> s, int i, int line = __builtin_LINE()) {
    emu::load_matrices<4>(r, s.offset(i, 16), false, line);
}
template <typename T>
void ldmatrix_x4_trans(uint32_t (&r)[4], Shared<T> s, int i, int line = __builtin_LINE()) {
    emu::load_matrices<4>(r, s.offset(i, 16), true, line);
}
template <typename T>
void ldmatrix_x2(uint32_t (&r)[2], Shared<T> s, int i, int line = __builtin_LINE()) {
    emu::load_matrices<2>(r, s.offset(i, 16), false, line);
}

template <typename T>
void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                  int line = __builtin_LINE()) {
    emu::MmaLane lane{c, a, b};
    emu::wait_for_warp(emu::mma_of(T{}), &lane, 0, line);
}
