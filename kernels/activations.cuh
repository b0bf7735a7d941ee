// Activations whose format is known at run time only: one number at a time.
//
// Invariant: formats are those of `Dtype`.
#pragma once

#include "device.cuh"

DEVICE float load_as(Dtype dtype, Global<const uint8_t> from, int64_t i) {
    switch (dtype) {
        case Dtype::F16:
            return to_f32(from.cast<f16>().get(i));
        case Dtype::BF16:
            return to_f32(from.cast<bf16>().get(i));
        default:
            return from.cast<float>().get(i);
    }
}

DEVICE void store_as(Dtype dtype, Global<uint8_t> to, int64_t i, float x) {
    switch (dtype) {
        case Dtype::F16:
            to.cast<f16>().set(i, from_f32<f16>(x));
            break;
        case Dtype::BF16:
            to.cast<bf16>().set(i, from_f32<bf16>(x));
            break;
        default:
            to.cast<float>().set(i, x);
    }
}
