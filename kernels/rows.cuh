// Rows of activations: packs of sixteen bytes, and the shorter one at a row's end.
//
// Rows start at multiples of sixteen bytes (`Dtype::stride` of the host); what lies between a row's
// last element and the next row is never read into a result, and never written.
//
// Invariant: a pack is one access of a thread, aligned.
#pragma once

#include "device.cuh"

/// Elements `i` to `i + LEN` of a row of `width`, widened; zero behind its end.
template <typename T>
DEVICE void load_pack(float (&v)[Pack<T>::LEN], Global<const T> row, int i, int width) {
    constexpr int LEN = Pack<T>::LEN;
    if (i + LEN <= width) {
        Pack<T> pack = row.get_pack(i);
#pragma unroll
        for (int j = 0; j < LEN; j++) {
            v[j] = to_f32(pack.v[j]);
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < LEN; j++) {
        v[j] = i + j < width ? to_f32(row.get(i + j)) : 0.0f;
    }
}

/// Rounds and stores what of the pack is inside the row.
template <typename T>
DEVICE void store_pack(Global<T> row, int i, int width, const float (&v)[Pack<T>::LEN]) {
    constexpr int LEN = Pack<T>::LEN;
    if (i + LEN <= width) {
        Pack<T> pack;
#pragma unroll
        for (int j = 0; j < LEN; j++) {
            pack.v[j] = from_f32<T>(v[j]);
        }
        row.set_pack(i, pack);
        return;
    }
    for (int j = 0; j < LEN && i + j < width; j++) {
        row.set(i + j, from_f32<T>(v[j]));
    }
}
