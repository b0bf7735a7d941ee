// Weight formats element by element: ggml's blocks as they lie in a file, and the formats that the
// fused products read, with quants and scales apart.
//
// Scales are multiplied in the order of ggml's own reference code, one rounding an operation, as
// the CPU backend does; the floats are the same.
//
// Invariant: an element is a function of its block's bytes.
#pragma once

#include "device.cuh"

/// As the host numbers them.
enum class Format : uint32_t {
    F32 = 0,
    F16 = 1,
    BF16 = 2,
    Q4_0 = 3,
    Q4_1 = 4,
    Q5_0 = 5,
    Q5_1 = 6,
    Q8_0 = 7,
    Q2_K = 8,
    Q3_K = 9,
    Q4_K = 10,
    Q5_K = 11,
    Q6_K = 12,
    /// Rows of signed bytes; half scales of 32 in `scales`.
    Q8_0_PLANES = 13,
    /// Rows of nibbles as in Q4_K; the first 16 bytes of each block in `scales`.
    Q4_K_PLANES = 14,
};

using Bytes = Global<const uint8_t>;

DEVICE float half_at(Bytes bytes, int64_t at) {
    return to_f32(f16{uint16_t(bytes.get(at) | bytes.get(at + 1) << 8)});
}

/// Scale and minimum of 32-element part `j` of a Q4_K or Q5_K block, whose twelve bytes of both
/// start at `at`.
struct ScaleMin {
    float scale;
    float min;
};
DEVICE ScaleMin scale_min(Bytes block, int64_t at, int j) {
    if (j < 4) {
        return {float(block.get(at + j) & 63), float(block.get(at + j + 4) & 63)};
    }
    int low = block.get(at + j + 4);
    return {float((low & 15) | (block.get(at + j - 4) >> 6) << 4),
            float((low >> 4) | (block.get(at + j) >> 6) << 4)};
}

DEVICE float q2_k(Bytes b, int i) {
    int part = i / 32, half = i / 16 % 2;
    int scale = b.get(2 * part + half);
    int q = b.get(16 + part / 4 * 32 + i % 32) >> (part % 4 * 2) & 3;
    return half_at(b, 80) * float(scale & 15) * float(q) - half_at(b, 82) * float(scale >> 4);
}

DEVICE float q3_k(Bytes b, int i) {
    int part = i / 32, s = i / 16;
    int low = b.get(96 + s % 8) >> (s / 8 * 4) & 15, high = b.get(104 + s % 4) >> (s / 4 * 2) & 3;
    float scale = half_at(b, 108) * float((low | high << 4) - 32);
    int q = b.get(32 + part / 4 * 32 + i % 32) >> (part % 4 * 2) & 3;
    int top = b.get(i % 32) >> part & 1;
    return scale * float(q + 4 * top - 4);
}

DEVICE float q4_k(Bytes scales, Bytes nibbles, int i) {
    int part = i / 32;
    ScaleMin s = scale_min(scales, 4, part);
    int q = nibbles.get(part / 2 * 32 + i % 32) >> (part % 2 * 4) & 15;
    return half_at(scales, 0) * s.scale * float(q) - half_at(scales, 2) * s.min;
}

DEVICE float q5_k(Bytes b, int i) {
    int part = i / 32;
    ScaleMin s = scale_min(b, 4, part);
    int q = b.get(48 + part / 2 * 32 + i % 32) >> (part % 2 * 4) & 15;
    int high = b.get(16 + i % 32) >> part & 1;
    return half_at(b, 0) * s.scale * float(q | high << 4) - half_at(b, 2) * s.min;
}

DEVICE float q6_k(Bytes b, int i) {
    int part = i / 32, big = part / 4, quarter = part % 4;
    int8_t scale = int8_t(b.get(192 + i / 16));
    int nibble = b.get(64 * big + quarter % 2 * 32 + i % 32) >> (quarter / 2 * 4) & 15;
    int high = b.get(128 + 32 * big + i % 32) >> (2 * quarter) & 3;
    return half_at(b, 208) * float(scale) * float((nibble | high << 4) - 32);
}

/// Element `i` of a block of 32.
DEVICE float small_block(Format format, Bytes b, int i) {
    int j = i % 16, upper = i / 16;
    float d = half_at(b, 0);
    switch (format) {
        case Format::Q4_0:
            return float((b.get(2 + j) >> (4 * upper) & 15) - 8) * d;
        case Format::Q4_1:
            return float(b.get(4 + j) >> (4 * upper) & 15) * d + half_at(b, 2);
        case Format::Q5_0: {
            int high = b.get(2 + i / 8) >> (i % 8) & 1;
            return float(((b.get(6 + j) >> (4 * upper) & 15) | high << 4) - 16) * d;
        }
        case Format::Q5_1: {
            int high = b.get(4 + i / 8) >> (i % 8) & 1;
            return float((b.get(8 + j) >> (4 * upper) & 15) | high << 4) * d + half_at(b, 2);
        }
        default:
            return float(int8_t(b.get(2 + i))) * d;
    }
}

/// Bytes of a block of a format whose quants and scales lie together.
DEVICE int block_bytes(Format format) {
    switch (format) {
        case Format::Q4_0:
            return 18;
        case Format::Q4_1:
            return 20;
        case Format::Q5_0:
            return 22;
        case Format::Q5_1:
            return 24;
        case Format::Q8_0:
            return 34;
        case Format::Q2_K:
            return 84;
        case Format::Q3_K:
            return 110;
        case Format::Q4_K:
            return 144;
        case Format::Q5_K:
            return 176;
        default:
            return 210;
    }
}

/// A matrix of weights: rows `row_bytes` apart, and of their scales, where those lie apart.
struct Weights {
    Bytes data;
    Bytes scales;
    int64_t row_bytes;
    int64_t scale_row_bytes;
};

/// Element `column` of row `row`, exact.
DEVICE float weight_at(Format format, const Weights& w, int64_t row, int column) {
    Bytes data = w.data.from(row * w.row_bytes);
    switch (format) {
        case Format::F32:
            return data.cast<float>().get(column);
        case Format::F16:
            return to_f32(data.cast<f16>().get(column));
        case Format::BF16:
            return to_f32(data.cast<bf16>().get(column));
        case Format::Q8_0_PLANES: {
            Bytes scales = w.scales.from(row * w.scale_row_bytes);
            return float(int8_t(data.get(column))) * half_at(scales, column / 32 * 2);
        }
        case Format::Q4_K_PLANES: {
            Bytes scales = w.scales.from(row * w.scale_row_bytes + column / 256 * 16);
            return q4_k(scales, data.from(column / 256 * 128), column % 256);
        }
        default:
            break;
    }
    if (format < Format::Q2_K) {
        return small_block(format, data.from(column / 32 * block_bytes(format)), column % 32);
    }
    Bytes block = data.from(column / 256 * int64_t(block_bytes(format)));
    int i = column % 256;
    switch (format) {
        case Format::Q2_K:
            return q2_k(block, i);
        case Format::Q3_K:
            return q3_k(block, i);
        case Format::Q4_K:
            return q4_k(block, block.from(16), i);
        case Format::Q5_K:
            return q5_k(block, i);
        default:
            return q6_k(block, i);
    }
}
