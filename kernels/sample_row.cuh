// A row's parameters, and what changes its logits before temperature: masks, minimum length, bias,
// penalties, in this order.
//
// Invariant: each step touches only the logits of the tokens it names; an id outside the vocabulary
// names none.
#pragma once

#include "sample.cuh"

namespace sample {

constexpr int THREADS = 512;
constexpr int NUM_WARPS = THREADS / WARP;
constexpr uint32_t NO_TOKEN = 0xFFFFFFFFu;
constexpr float GREEDY_BELOW = 1e-5f;
/// Blocks of 256 of the largest vocabulary.
constexpr int MAX_BLOCKS = 1536;
constexpr int NUM_BUCKETS = 1024;

/// Parameters of a row; the struct of the host's `SampleRow`.
struct Row {
    float temperature;
    float top_p;
    float min_p;
    uint32_t top_k;
    float repetition_penalty;
    float frequency_penalty;
    float presence_penalty;
    uint32_t slot;
    uint32_t seed_low;
    uint32_t seed_high;
    uint32_t position;
    uint32_t choice;
    /// Token ids that cannot be drawn yet, in `masked`.
    uint32_t masked_start;
    uint32_t masked_end;
    /// Token ids and what is added to them, in `bias_tokens` and `biases`.
    uint32_t bias_start;
    uint32_t bias_end;
    /// Where the slot's counts start, and how many there are; 0: no penalties.
    uint32_t counts_start;
    uint32_t counts_capacity;
    /// Rows of `masks`, or NO_TOKEN: only tokens with a bit in both can be drawn.
    uint32_t allowed;
    uint32_t grammar;
};

/// The struct of the host's `Sample`.
struct Args {
    Global<float> logits;
    Global<const Row> rows;
    Global<const uint32_t> masked;
    Global<const uint32_t> bias_tokens;
    Global<const float> biases;
    /// [masks, (vocab_size + 31) / 32].
    Global<const uint32_t> masks;
    Global<uint32_t> counts;
    Global<uint32_t> tokens;
    Global<uint32_t> last_tokens;
    uint32_t vocab_size;
    uint32_t stride;
};

/// What a block works in. Sums of blocks and the radix histogram are never needed together.
struct Space {
    Shared<double> block_sums;
    Shared<uint32_t> block_counts;
    Shared<unsigned long long> histogram;
    Shared<uint32_t> words;
};

/// The largest logit; `is_valid` false for a NaN, plus infinity, or nothing above minus infinity.
DEVICE float finite_max(Global<const float> logits, int len, bool& is_valid) {
    float max = -INFINITY, nan = 0.0f;
    for (int i = thread_id(); i < len; i += THREADS) {
        float x = logits.get(i);
        max = x > max ? x : max;
        nan = x != x ? 1.0f : nan;
    }
    max = block_max(max);
    is_valid = block_max(nan) == 0.0f && max > -INFINITY && max < INFINITY;
    return max;
}

DEVICE float penalized(float x, const Row& row, uint32_t count) {
    x = x > 0.0f ? x / row.repetition_penalty : x * row.repetition_penalty;
    x = x - row.frequency_penalty * float(count);
    return count > 0 ? x - row.presence_penalty : x;
}

/// Masks, minimum length, bias, penalties. Barriers order what touches the same logits.
DEVICE void adjust(const Args& args, const Row& row, Global<float> logits, int len) {
    int words = div_up(len, 32);
    for (int i = thread_id(); i < len; i += THREADS) {
        bool allowed = true;
        if (row.allowed != NO_TOKEN) {
            allowed &= args.masks.get(int64_t(row.allowed) * words + i / 32) >> (i % 32) & 1;
        }
        if (row.grammar != NO_TOKEN) {
            allowed &= args.masks.get(int64_t(row.grammar) * words + i / 32) >> (i % 32) & 1;
        }
        if (!allowed) {
            logits.set(i, -INFINITY);
        }
    }
    sync_block();
    for (uint32_t i = row.masked_start + thread_id(); i < row.masked_end; i += THREADS) {
        uint32_t token = args.masked.get(i);
        if (token < uint32_t(len)) {
            logits.set(token, -INFINITY);
        }
    }
    sync_block();
    // A token may occur twice: one after the other.
    for (uint32_t i = row.bias_start; thread_id() == 0 && i < row.bias_end; i++) {
        uint32_t token = args.bias_tokens.get(i);
        if (token < uint32_t(len)) {
            logits.set(token, logits.get(token) + args.biases.get(i));
        }
    }
    sync_block();
    for (uint32_t i = thread_id(); i < row.counts_capacity; i += THREADS) {
        int64_t at = 2 * (int64_t(row.counts_start) + i);
        uint32_t token = args.counts.get(at);
        if (token < uint32_t(len)) {
            logits.set(token, penalized(logits.get(token), row, args.counts.get(at + 1)));
        }
    }
    sync_block();
}

}  // namespace sample
