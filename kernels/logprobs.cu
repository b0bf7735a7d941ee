// logprobs: log-softmax of a token's logit, its rank, and the most likely tokens.
//
// logits: [rows, vocab_size], f32, rows `stride` elements apart, as the model made them: rows that
// the sampler is to change are copied before. Each entry has a row of logits and a token, given or,
// as TOKEN_DRAWN, the one that the sampler drew for `tokens[drawn]`. Results: logprob and rank (1
// for the most likely; 0 where the logits are unusable) of each entry, and `num_top` pairs of token
// and logprob, best first, NO_TOKEN where there are fewer. A block an entry.
//
// Invariant: sums and order are those of crates/sampler; of equals the lower id is first.
#include "sample_row.cuh"

namespace logprobs {

using namespace sample;

constexpr uint32_t TOKEN_DRAWN = 0xFFFFFFFEu;

/// The struct of the host's `LogprobsEntry`.
struct Entry {
    uint32_t row;
    uint32_t token;
    /// Index in `tokens`, for TOKEN_DRAWN.
    uint32_t drawn;
    uint32_t num_top;
    /// Start of the entry's pairs in `top_tokens` and `top_logprobs`.
    uint32_t top_start;
};

/// The struct of the host's `Logprobs`.
struct Args {
    Global<const float> logits;
    Global<const Entry> entries;
    Global<const uint32_t> tokens;
    Global<float> own_logprobs;
    Global<uint32_t> ranks;
    Global<uint32_t> top_tokens;
    Global<float> top_logprobs;
    uint32_t vocab_size;
    uint32_t stride;
};

/// The sum of `e^(x - max)`: sixteen lanes of each 256 elements in f32, lanes and blocks in f64.
DEVICE double sum_exp(Global<const float> logits, int len, float max, Shared<double> sums) {
    int num_blocks = div_up(len, BLOCK), lane = lane_id() % LANES, half = lane_id() / LANES;
    for (int pair = warp_id(); pair < div_up(num_blocks, 2); pair += NUM_WARPS) {
        int block = 2 * pair + half;
        float sum = 0.0f;
        for (int i = block * BLOCK + lane; i < min_of((block + 1) * BLOCK, len); i += LANES) {
            sum += exp_nonpositive(logits.get(i) - max);
        }
        double folded = 0.0;
        for (int i = 0; i < LANES; i++) {
            folded += double(shfl(sum, half * LANES + i));
        }
        if (lane == 0 && block < num_blocks) {
            sums.set(block, folded);
        }
    }
    sync_block();
    double total = 0.0;
    for (int block = 0; block < num_blocks; block++) {
        total += sums.get(block);
    }
    return total;
}

/// The largest key below `bound` of a token above minus infinity; 0 where there is none.
DEVICE unsigned long long largest_below(Global<const float> logits, int len,
                                        unsigned long long bound) {
    unsigned long long best = 0;
    for (int i = thread_id(); i < len; i += THREADS) {
        float x = logits.get(i);
        unsigned long long key = key_of(x, i);
        best = x > -INFINITY && key < bound && key > best ? key : best;
    }
    return block_best(best);
}

/// How many tokens come before `token`.
DEVICE uint32_t num_better(Global<const float> logits, int len, uint32_t token, float own) {
    float count = 0.0f;
    for (int i = thread_id(); i < len; i += THREADS) {
        float x = logits.get(i);
        bool is_better = uint32_t(i) < token ? x >= own : uint32_t(i) > token && x > own;
        count += is_better ? 1.0f : 0.0f;
    }
    // Whole numbers below 2^24: exact in any order.
    return uint32_t(block_sum(count));
}

DEVICE void run(const Args& args) {
    SHARED_ARRAY(double, sums, MAX_BLOCKS);
    Entry entry = args.entries.get(block_x());
    int len = int(args.vocab_size);
    Global<const float> logits = args.logits.from(int64_t(entry.row) * args.stride);
    uint32_t token = entry.token == TOKEN_DRAWN ? args.tokens.get(entry.drawn) : entry.token;
    bool is_valid;
    float max = finite_max(logits, len, is_valid);
    double log_sum = is_valid ? log(sum_exp(logits, len, max, sums)) : 0.0;
    float own = token < uint32_t(len) ? logits.get(token) : -INFINITY;
    uint32_t rank = num_better(logits, len, token, own) + 1;
    if (thread_id() == 0) {
        float logprob = float((double(own) - double(max)) - log_sum);
        args.own_logprobs.set(block_x(), is_valid ? logprob : NAN);
        args.ranks.set(block_x(), is_valid ? rank : 0);
    }
    unsigned long long bound = 0xFFFFFFFFFFFFFFFFull;
    for (uint32_t i = 0; i < entry.num_top; i++) {
        bound = is_valid ? largest_below(logits, len, bound) : 0;
        if (thread_id() == 0) {
            uint32_t best = bound == 0 ? NO_TOKEN : ~uint32_t(bound);
            float x = bound == 0 ? -INFINITY : logits.get(best);
            args.top_tokens.set(entry.top_start + i, best);
            float logprob = float((double(x) - double(max)) - log_sum);
            args.top_logprobs.set(entry.top_start + i, bound == 0 ? -INFINITY : logprob);
        }
    }
}

KERNEL(logprobs, Args, THREADS, run)

}  // namespace logprobs
