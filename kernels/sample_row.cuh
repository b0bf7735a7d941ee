// What sampling and log-probabilities share: a row's parameters, penalties, the largest logit.
//
// Invariant: of equal logits the one of the lowest token is the larger key.
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
/// Logits of a block of sample_scan and sample_weigh, whatever the vocabulary and the batch.
constexpr int CHUNK = 2048;
constexpr int SCAN_THREADS = 256;
/// Sixteen for each 256 logits.
constexpr int WEIGH_THREADS = CHUNK / BLOCK * LANES;

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
    /// [rows, (vocab_size + CHUNK - 1) / CHUNK]: `key_of` each chunk's largest logit, or of infinity
    /// where the chunk holds what no logits may.
    Global<unsigned long long> chunk_keys;
    /// [rows, (vocab_size + BLOCK - 1) / BLOCK]: the sums of weights.
    Global<double> block_sums;
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

/// A token's place in the order: larger value first, then lower id. Never zero.
DEVICE unsigned long long key_of(float x, int i) {
    return (unsigned long long)ordered(x) << 32 | uint32_t(~uint32_t(i));
}

/// The largest key of a block, in every thread.
DEVICE unsigned long long block_best(unsigned long long best) {
    SHARED_ARRAY(unsigned long long, parts, WARP);
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        unsigned long long other = shfl_xor(best, mask);
        best = other > best ? other : best;
    }
    sync_block();
    if (lane_id() == 0) {
        parts.set(warp_id(), best);
    }
    sync_block();
    for (int i = 0; i < num_threads() / WARP; i++) {
        unsigned long long other = parts.get(i);
        best = other > best ? other : best;
    }
    return best;
}

DEVICE float penalized(float x, const Row& row, uint32_t count) {
    x = x > 0.0f ? x / row.repetition_penalty : x * row.repetition_penalty;
    x = x - row.frequency_penalty * float(count);
    return count > 0 ? x - row.presence_penalty : x;
}

}  // namespace sample
