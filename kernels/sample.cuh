// Arithmetic of the sampler, operation by operation that of the CPU's (crates/sampler), so that
// equal logits give equal tokens: the exponential without fused operations, sums in sixteen lanes
// of 256 elements, Philox.
//
// Invariant: no operation here is contracted or reordered (-fmad=false, -ffp-contract=off).
#pragma once

#include "device.cuh"

namespace sample {

constexpr int BLOCK = 256;
constexpr int LANES = 16;

/// `e^x` for `x <= 0`; 0 below -87. Cephes' polynomial.
DEVICE float exp_nonpositive(float x) {
    constexpr float UNDERFLOW = -87.0f;
    // 1.5 * 2^23: adding it rounds to a whole number, which then stands in the low bits.
    constexpr float ROUND = 12582912.0f;
    float clamped = x < UNDERFLOW ? UNDERFLOW : x;
    float rounded = clamped * 1.44269504088896340736f + ROUND;
    float power = rounded - ROUND;
    float r = clamped - power * (355.0f / 512.0f) - power * -2.1219444e-4f;
    float p = 1.9875691e-4f;
    p = p * r + 1.3981999e-3f;
    p = p * r + 8.333452e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 0.5f;
    float mantissa = p * r * r + r + 1.0f;
    float scale = bits_float((float_bits(rounded) << 23) + (127u << 23));
    return x < UNDERFLOW ? 0.0f : mantissa * scale;
}

/// A uniform number in [0, 1) with 53 random bits: Philox4x32-10 with key = seed and counter =
/// (position, choice, draw, 0). Salmon et al., SC 2011.
DEVICE double uniform(uint32_t seed_low, uint32_t seed_high, uint32_t position, uint32_t choice,
                      uint32_t draw) {
    uint32_t k0 = seed_low, k1 = seed_high;
    uint32_t c0 = position, c1 = choice, c2 = draw, c3 = 0;
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
        c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
        c1 = uint32_t(p1);
        c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
        c3 = uint32_t(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    uint64_t bits = uint64_t(c0) << 21 | c1 >> 11;
    return double(bits) / 9007199254740992.0;
}

/// Values in order as whole numbers; minus zero equals zero.
DEVICE uint32_t ordered(float x) {
    uint32_t bits = float_bits(x + 0.0f);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

/// The value of a number that `ordered` gave.
DEVICE float unordered(uint32_t key) {
    return bits_float(key >> 31 ? key & 0x7FFFFFFFu : ~key);
}

}  // namespace sample
