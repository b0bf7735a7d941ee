// Number formats of sixteen bits, and packs of sixteen bytes: what kernels load, store and convert.
//
// Our own types, so that one source serves nvcc and the host's compiler. Rounding is to nearest,
// ties to even; NaN becomes the canonical 0x7FFF, as the card's own conversions make it.
//
// Invariant: a conversion gives the same bits on the card and on the host.
#pragma once

#include <stdint.h>

#if defined(__CUDACC__)
#define DEVICE __device__ __forceinline__
#else
#include <string.h>
#define DEVICE inline
#endif

/// IEEE half.
struct f16 {
    uint16_t bits;
};

/// bfloat16: the upper half of an IEEE single.
struct bf16 {
    uint16_t bits;
};

/// Sixteen bytes of `T`, one vector access.
template <typename T>
struct alignas(16) Pack {
    static constexpr int LEN = 16 / sizeof(T);
    T v[LEN];
};

DEVICE uint32_t float_bits(float x) {
#if defined(__CUDA_ARCH__)
    return __float_as_uint(x);
#else
    uint32_t bits = 0;
#if !defined(__CUDACC__)
    memcpy(&bits, &x, sizeof(bits));
#endif
    return bits;
#endif
}

DEVICE float bits_float(uint32_t bits) {
#if defined(__CUDA_ARCH__)
    return __uint_as_float(bits);
#else
    float x = 0;
#if !defined(__CUDACC__)
    memcpy(&x, &bits, sizeof(x));
#endif
    return x;
#endif
}

DEVICE float to_f32(float x) { return x; }

DEVICE float to_f32(bf16 x) { return bits_float(uint32_t(x.bits) << 16); }

DEVICE float to_f32(f16 x) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
    return result;
#else
    uint32_t sign = uint32_t(x.bits & 0x8000) << 16;
    uint32_t rest = uint32_t(x.bits & 0x7FFF) << 13;
    if ((x.bits & 0x7C00) == 0x7C00) {
        return bits_float(sign | rest | 0x7F800000);
    }
    // The exponent's bias differs by 112; the product is exact for subnormals too.
    float magnitude = bits_float(rest) * bits_float(uint32_t(127 + 112) << 23);
    return bits_float(sign | float_bits(magnitude));
#endif
}

/// The host's road from f32 to bfloat16.
DEVICE uint16_t round_to_bf16(float x) {
    uint32_t bits = float_bits(x);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) {
        return 0x7FFF;
    }
    return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/// The host's road from f32 to half.
DEVICE uint16_t round_to_f16(float x) {
    uint32_t bits = float_bits(x);
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) {
        return 0x7FFF;
    }
    // From 65520 on everything rounds to infinity.
    if (magnitude >= 0x477FF000) {
        return uint16_t(sign | 0x7C00);
    }
    if (magnitude < 0x38800000) {
        // Subnormal: adding 0.5 leaves the result's units in the last bits, rounded.
        float shifted = bits_float(magnitude) + 0.5f;
        return uint16_t(sign | (float_bits(shifted) - 0x3F000000));
    }
    uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
    return uint16_t(sign | ((rounded - 0x38000000) >> 13));
}

template <typename T>
DEVICE T from_f32(float x);

template <>
DEVICE float from_f32<float>(float x) {
    return x;
}

template <>
DEVICE bf16 from_f32<bf16>(float x) {
#if defined(__CUDA_ARCH__)
    bf16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
#else
    return bf16{round_to_bf16(x)};
#endif
}

template <>
DEVICE f16 from_f32<f16>(float x) {
#if defined(__CUDA_ARCH__)
    f16 result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
#else
    return f16{round_to_f16(x)};
#endif
}

/// As `from_f32`, but what is too large becomes the largest number: an infinite key would make its
/// whole row NaN.
template <typename T>
DEVICE T from_f32_saturating(float x) {
    return from_f32<T>(x);
}

template <>
DEVICE f16 from_f32_saturating<f16>(float x) {
    f16 rounded = from_f32<f16>(x);
    if ((rounded.bits & 0x7FFF) == 0x7C00) {
        rounded.bits -= 1;
    }
    return rounded;
}

/// Two numbers in one register, the first in the low half: the order of mma fragments.
template <typename T>
DEVICE uint32_t pack2(float low, float high) {
    return uint32_t(from_f32<T>(low).bits) | uint32_t(from_f32<T>(high).bits) << 16;
}

/// Activations' and weights' formats, as the host numbers them.
enum class Dtype : uint32_t { F32 = 0, F16 = 1, BF16 = 2 };
