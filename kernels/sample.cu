// sample_scan, sample_weigh, sample: from logits to a token, row by row: masks, minimum length, bias,
// penalties, temperature, min-p, top-k, top-p, draw, in this order.
//
// logits: [rows, vocab_size], f32, rows `stride` elements apart; they are changed. Every row has a
// `Row` of parameters; lists of several rows lie one after the other. The drawn token goes to
// tokens[row] and to last_tokens[slot], and is counted in the slot's table if that has room; a row
// whose logits hold a NaN, plus infinity, or nothing after the masks gets NO_TOKEN and changes
// nothing. Counts are a table with linear probing: `capacity` pairs (token, times in the output), a
// power of two, NO_TOKEN where empty.
//
// sample_scan, a block a chunk of CHUNK logits, does all that comes before the temperature and
// leaves the chunk's largest logit; sample_weigh, a block a chunk too, replaces the logits of rows
// that need all of them by weights and leaves the sums; sample, a block a row, ends it. A greedy row
// is ended from what the chunks left alone, a row without top-k and top-p from that and the one
// block of 256 weights that the draw falls into.
//
// Invariant: the token is that of crates/sampler for the same logits and parameters: sums are the
// same operations in the same order (sample.cuh), or exact in any order (see `bucket_sum`).
#include "sample_row.cuh"

namespace sample {

/// Whether only some of the logits become weights.
DEVICE bool has_top_k(const Row& row, int len) { return row.top_k > 0 && row.top_k < uint32_t(len); }

/// `x` after the penalties of `token`, if the slot's table has it.
DEVICE float with_penalties(const Args& args, const Row& row, uint32_t token, float x) {
    uint32_t mask = row.counts_capacity - 1;
    for (uint32_t i = 0; i < row.counts_capacity; i++) {
        int64_t at = 2 * (int64_t(row.counts_start) + ((token * 0x9E3779B1u + i) & mask));
        uint32_t key = args.counts.get(at);
        if (key == token) {
            return penalized(x, row, args.counts.get(at + 1));
        }
        if (key == NO_TOKEN) {
            break;
        }
    }
    return x;
}

DEVICE bool is_allowed(const Args& args, const Row& row, int words, int i) {
    bool allowed = true;
    if (row.allowed != NO_TOKEN) {
        allowed &= args.masks.get(int64_t(row.allowed) * words + i / 32) >> (i % 32) & 1;
    }
    if (row.grammar != NO_TOKEN) {
        allowed &= args.masks.get(int64_t(row.grammar) * words + i / 32) >> (i % 32) & 1;
    }
    return allowed;
}

/// A chunk of a row, of which a thread has every SCAN_THREADS-th logit: nobody else touches it, so
/// that what comes one after the other needs no barrier.
DEVICE void scan(const Args& args) {
    Row row = args.rows.get(block_y());
    int len = int(args.vocab_size), words = div_up(len, 32);
    int begin = block_x() * CHUNK, end = min_of(begin + CHUNK, len), own = begin + thread_id();
    Global<float> logits = args.logits.from(int64_t(block_y()) * args.stride);
    // A masked NaN is still a failure of the model.
    bool is_bad = false;
    for (int i = own; i < end; i += SCAN_THREADS) {
        is_bad |= !(logits.get(i) < INFINITY);
        if (!is_allowed(args, row, words, i)) {
            logits.set(i, -INFINITY);
        }
    }
    auto is_own = [=](uint32_t token) {
        return token >= uint32_t(own) && token < uint32_t(end) &&
               (token - uint32_t(own)) % SCAN_THREADS == 0;
    };
    for (uint32_t i = row.masked_start; i < row.masked_end; i++) {
        uint32_t token = args.masked.get(i);
        if (is_own(token)) {
            logits.set(token, -INFINITY);
        }
    }
    // A token may occur twice: one after the other.
    for (uint32_t i = row.bias_start; i < row.bias_end; i++) {
        uint32_t token = args.bias_tokens.get(i);
        if (is_own(token)) {
            logits.set(token, logits.get(token) + args.biases.get(i));
        }
    }
    unsigned long long best = 0;
    for (int i = own; i < end; i += SCAN_THREADS) {
        float x = logits.get(i);
        if (row.counts_capacity > 0) {
            x = with_penalties(args, row, uint32_t(i), x);
            logits.set(i, x);
        }
        is_bad |= !(x < INFINITY);
        unsigned long long key = key_of(x, i);
        best = key > best ? key : best;
    }
    best = block_best(is_bad ? key_of(INFINITY, 0) : best);
    if (thread_id() == 0) {
        args.chunk_keys.set(int64_t(block_y()) * div_up(len, CHUNK) + block_x(), best);
    }
}

/// The largest logit of a row, and the lowest token that has it.
struct Best {
    float max;
    uint32_t token;
    bool is_valid;
};
DEVICE Best row_best(const Args& args, int row) {
    int num_chunks = div_up(int(args.vocab_size), CHUNK);
    unsigned long long best = 0;
    for (int i = thread_id(); i < num_chunks; i += num_threads()) {
        unsigned long long key = args.chunk_keys.get(int64_t(row) * num_chunks + i);
        best = key > best ? key : best;
    }
    best = block_best(best);
    float max = unordered(uint32_t(best >> 32));
    return {max, ~uint32_t(best), max > -INFINITY && max < INFINITY};
}

/// Replaces the logits of a chunk by weights, and sums each 256 of them: sixteen lanes in f32, then
/// the lanes in f64.
DEVICE void weigh(const Args& args) {
    Row row = args.rows.get(block_y());
    int len = int(args.vocab_size), num_blocks = div_up(len, BLOCK);
    if (row.temperature < GREEDY_BELOW || has_top_k(row, len)) {
        return;
    }
    Best best = row_best(args, block_y());
    if (!best.is_valid) {
        return;
    }
    Global<float> logits = args.logits.from(int64_t(block_y()) * args.stride);
    float inverse = 1.0f / row.temperature;
    int lane = lane_id() % LANES, half = lane_id() / LANES;
    int block = block_x() * (CHUNK / BLOCK) + thread_id() / LANES;
    float sum = 0.0f;
    for (int i = block * BLOCK + lane; i < min_of((block + 1) * BLOCK, len); i += LANES) {
        float weight = exp_nonpositive((logits.get(i) - best.max) * inverse);
        weight = weight < row.min_p ? 0.0f : weight;
        logits.set(i, weight);
        sum += weight;
    }
    double folded = 0.0;
    for (int i = 0; i < LANES; i++) {
        folded += double(shfl(sum, half * LANES + i));
    }
    if (lane == 0 && block < num_blocks) {
        args.block_sums.set(int64_t(block_y()) * num_blocks + block, folded);
    }
}

/// Counts in each block the values for which `f` holds: `block_counts`, then their sum over the
/// blocks before.
template <typename F>
DEVICE void count_blocks(Global<float> values, int len, const Space& space, F f) {
    sync_block();
    for (int block = warp_id(); block < div_up(len, BLOCK); block += NUM_WARPS) {
        uint32_t count = 0;
        for (int step = 0; step < BLOCK / WARP; step++) {
            int i = block * BLOCK + step * WARP + lane_id();
            bool holds = i < len && f(values.get(i));
            count += uint32_t(count_bits(warp_ballot(holds)));
        }
        if (lane_id() == 0) {
            space.block_counts.set(block, count);
        }
    }
    sync_block();
}

/// Replaces each value by `to(x)`, but by `dropped` where it compares equal to the border and
/// `num_ties` such came before it, or where it is below.
template <typename Above, typename Tie, typename To>
DEVICE void keep(Global<float> values, int len, uint32_t num_ties, float dropped,
                 const Space& space, Above above, Tie tie, To to) {
    count_blocks(values, len, space, tie);
    if (thread_id() == 0) {
        uint32_t before = 0;
        for (int block = 0; block < div_up(len, BLOCK); block++) {
            uint32_t count = space.block_counts.get(block);
            space.block_counts.set(block, before);
            before += count;
        }
    }
    sync_block();
    for (int block = warp_id(); block < div_up(len, BLOCK); block += NUM_WARPS) {
        uint32_t before = space.block_counts.get(block);
        for (int step = 0; step < BLOCK / WARP; step++) {
            int i = block * BLOCK + step * WARP + lane_id();
            float x = i < len ? values.get(i) : 0.0f;
            bool is_tie = i < len && tie(x);
            uint32_t votes = warp_ballot(is_tie);
            uint32_t rank = before + uint32_t(count_bits(votes & ((1u << lane_id()) - 1)));
            if (i < len) {
                bool stays = is_tie ? rank < num_ties : above(x);
                values.set(i, stays ? to(x) : dropped);
            }
            before += uint32_t(count_bits(votes));
        }
    }
    sync_block();
}

/// Finds the ordered value of the k-th largest of those above minus infinity, and how many equal
/// to it are among the k largest. Fewer than k: everything is.
DEVICE uint32_t find_kth(Global<float> values, int len, uint32_t k, uint32_t& num_ties,
                         const Space& space) {
    uint32_t prefix = 0, missing = k;
    for (int shift = 24; shift >= 0; shift -= 8) {
        sync_block();
        for (int i = thread_id(); i < 256; i += THREADS) {
            space.histogram.set(i, 0);
        }
        sync_block();
        for (int i = thread_id(); i < len; i += THREADS) {
            float x = values.get(i);
            uint32_t key = ordered(x);
            bool is_below = shift < 24 && key >> (shift + 8) != prefix;
            if (x > -INFINITY && !is_below) {
                atomic_add(space.histogram, int(key >> shift & 255), 1ULL);
            }
        }
        sync_block();
        if (thread_id() == 0) {
            int bucket = 255;
            while (bucket > 0 && space.histogram.get(bucket) < missing) {
                missing -= uint32_t(space.histogram.get(bucket));
                bucket -= 1;
            }
            space.words.set(0, uint32_t(bucket));
            space.words.set(1, missing);
        }
        sync_block();
        prefix = prefix << 8 | space.words.get(0);
        missing = space.words.get(1);
    }
    num_ties = missing;
    return prefix;
}

/// Takes the sums of blocks that `weigh` left, marks the blocks that have any weight, and returns
/// the sum of all, in order.
DEVICE double take_sums(const Args& args, int num_blocks, const Space& space) {
    for (int i = thread_id(); i < num_blocks; i += THREADS) {
        double sum = args.block_sums.get(int64_t(block_x()) * num_blocks + i);
        space.block_sums.set(i, sum);
        space.block_counts.set(i, sum > 0.0 ? 1 : 0);
    }
    sync_block();
    double total = 0.0;
    for (int block = 0; block < num_blocks; block++) {
        total += space.block_sums.get(block);
    }
    return total;
}

/// The sum of weights with the same exponent is exact in any order: whole mantissas are added.
DEVICE double bucket_sum(unsigned long long mantissas, int exponent) {
    uint64_t bits = uint64_t(exponent - 150 + 1023) << 52;
    double unit;
    memcpy(&unit, &bits, sizeof(unit));
    return double(mantissas) * unit;
}

/// Where the running weight, counted down from the heaviest bucket, reaches `missing`.
struct Border {
    int bucket;
    double above;
    bool is_found;
};
DEVICE Border search_buckets(double missing, bool is_certain, int exponent, const Space& space) {
    Border lowest{0, 0.0, false};
    double above = 0.0;
    for (int bucket = NUM_BUCKETS - 1; bucket >= 0; bucket--) {
        unsigned long long mantissas = space.histogram.get(bucket);
        if (mantissas == 0) {
            continue;
        }
        double weight = bucket_sum(mantissas, exponent >= 0 ? exponent : bucket >> 3);
        if (above + weight >= missing) {
            return {bucket, above, true};
        }
        lowest = {bucket, above, is_certain};
        above += weight;
    }
    return lowest;
}

/// One thread searches; all get what it finds.
DEVICE Border find_bucket(double missing, bool is_certain, int exponent, const Space& space) {
    if (thread_id() == 0) {
        Border border = search_buckets(missing, is_certain, exponent, space);
        space.words.set(0, uint32_t(border.bucket));
        space.words.set(1, border.is_found ? 1 : 0);
        space.block_sums.set(0, border.above);
    }
    sync_block();
    return {int(space.words.get(0)), space.block_sums.get(0), space.words.get(1) != 0};
}

/// Keeps the smallest set of the heaviest weights above `floor` that weighs `target`.
DEVICE void keep_top_p(Global<float> weights, int len, float floor, double target,
                       const Space& space) {
    uint32_t prefix = 0;
    double above = 0.0;
    for (int shift = 20; shift >= 0; shift -= 10) {
        sync_block();
        for (int i = thread_id(); i < NUM_BUCKETS; i += THREADS) {
            space.histogram.set(i, 0);
        }
        sync_block();
        for (int i = thread_id(); i < len; i += THREADS) {
            float weight = weights.get(i);
            uint32_t bits = float_bits(weight);
            bool is_here = shift == 20 || bits >> (shift + 10) == prefix;
            if (weight > floor && is_here) {
                unsigned long long mantissa = (bits & 0x7FFFFF) | 0x800000;
                atomic_add(space.histogram, int(bits >> shift & 1023), mantissa);
            }
        }
        sync_block();
        int exponent = shift == 20 ? -1 : int(prefix >> (shift == 10 ? 3 : 13));
        Border border = find_bucket(target - above, shift != 20, exponent, space);
        if (!border.is_found) {
            // All together do not weigh more than that: only the floor drops any.
            keep(weights, len, 0, 0.0f, space, [=](float x) { return x > floor; },
                 [](float) { return false; }, [](float x) { return x; });
            return;
        }
        above += border.above;
        prefix = prefix << 10 | uint32_t(border.bucket);
    }
    float border = bits_float(prefix);
    double missing = ceil((target - above) / double(border));
    uint32_t num_ties = missing < 1.0 ? 1 : uint32_t(missing);
    keep(weights, len, num_ties, 0.0f, space, [=](float x) { return x > border; },
         [=](float x) { return x == border; }, [](float x) { return x; });
}

/// Adds weights in order of id, one after the other, in f64: up to `target`, or all. One warp; only
/// blocks with weights are looked at. `last`: where it ended, or the last weight above zero.
DEVICE double walk(Global<float> weights, int first_block, int end_block, int len, double target,
                   uint32_t& last, const Space& space) {
    double sum = 0.0;
    for (int block = first_block; block < end_block; block++) {
        if (space.block_counts.get(block) == 0) {
            continue;
        }
        for (int step = 0; step < BLOCK / WARP; step++) {
            int first = block * BLOCK + step * WARP, i = first + lane_id();
            float weight = i < len ? weights.get(i) : 0.0f;
            uint32_t votes = warp_ballot(weight > 0.0f);
            for (; votes != 0; votes &= votes - 1) {
                int lane = count_bits(~votes & (votes - 1));
                last = uint32_t(first + lane);
                sum += double(shfl(weight, lane));
                if (sum > target) {
                    return sum;
                }
            }
        }
    }
    return sum;
}

/// Draws from `weights`, whose blocks are counted; the sum of all is taken first.
DEVICE uint32_t draw(Global<float> weights, int len, double uniform, const Space& space) {
    uint32_t token = 0;
    int num_blocks = div_up(len, BLOCK);
    double total = walk(weights, 0, num_blocks, len, INFINITY, token, space);
    walk(weights, 0, num_blocks, len, uniform * total, token, space);
    return token;
}

/// As `draw`, with the sums of blocks known.
DEVICE uint32_t draw_in_blocks(Global<float> weights, int len, double total, double uniform,
                               const Space& space) {
    double rest = uniform * total, rest_of_chosen = 0.0;
    int chosen = 0;
    for (int block = 0; block < div_up(len, BLOCK); block++) {
        double sum = space.block_sums.get(block);
        if (sum > 0.0) {
            chosen = block;
            rest_of_chosen = rest;
            if (rest < sum) {
                break;
            }
            rest -= sum;
        }
    }
    uint32_t token = 0;
    walk(weights, chosen, chosen + 1, len, rest_of_chosen, token, space);
    return token;
}

/// The sum of the weights that are left, in order of id; every thread gets it.
DEVICE double sum_in_order(Global<float> weights, int len, const Space& space) {
    count_blocks(weights, len, space, [](float x) { return x > 0.0f; });
    if (warp_id() == 0) {
        uint32_t last = 0;
        double sum = walk(weights, 0, div_up(len, BLOCK), len, INFINITY, last, space);
        if (lane_id() == 0) {
            space.block_sums.set(0, sum);
        }
    }
    sync_block();
    return space.block_sums.get(0);
}

/// Temperature, min-p, top-k, top-p, draw. The token is the first warp's.
DEVICE uint32_t draw_token(const Args& args, const Row& row, Global<float> logits, int len,
                           float max, const Space& space) {
    double random = uniform(row.seed_low, row.seed_high, row.position, row.choice, 0);
    float floor = 0.0f, inverse = 1.0f / row.temperature, min_p = row.min_p;
    double total;
    if (has_top_k(row, len)) {
        uint32_t num_ties;
        uint32_t border = find_kth(logits, len, row.top_k, num_ties, space);
        keep(logits, len, num_ties, 0.0f, space,
             [=](float x) { return x > -INFINITY && ordered(x) > border; },
             [=](float x) { return x > -INFINITY && ordered(x) == border; },
             [=](float x) {
                 float weight = exp_nonpositive((x + 0.0f - max) * inverse);
                 return weight >= min_p ? weight : 0.0f;
             });
        total = row.top_p < 1.0f ? sum_in_order(logits, len, space) : 0.0;
    } else {
        total = take_sums(args, div_up(len, BLOCK), space);
        if (row.top_p >= 1.0f) {
            return warp_id() == 0 ? draw_in_blocks(logits, len, total, random, space) : 0;
        }
        // One percent less than the bound, so that rounding in the sum cannot matter.
        double left_out = (1.0 - double(row.top_p)) * total * 0.99;
        floor = float(left_out / double(len));
    }
    if (row.top_p < 1.0f) {
        keep_top_p(logits, len, floor, double(row.top_p) * total, space);
    }
    count_blocks(logits, len, space, [](float x) { return x > 0.0f; });
    return warp_id() == 0 ? draw(logits, len, random, space) : 0;
}

/// Counts a drawn token in the slot's table; a full table keeps what it has.
DEVICE void count_token(const Args& args, const Row& row, uint32_t token) {
    uint32_t mask = row.counts_capacity - 1;
    for (uint32_t i = 0; i < row.counts_capacity; i++) {
        int64_t at = 2 * (int64_t(row.counts_start) + ((token * 0x9E3779B1u + i) & mask));
        uint32_t key = args.counts.get(at);
        if (key == token || key == NO_TOKEN) {
            uint32_t before = key == token ? args.counts.get(at + 1) : 0;
            args.counts.set(at, token);
            args.counts.set(at + 1, before + 1);
            return;
        }
    }
}

DEVICE void run(const Args& args) {
    SHARED_ARRAY(double, block_sums, MAX_BLOCKS);
    SHARED_ARRAY(uint32_t, block_counts, MAX_BLOCKS);
    SHARED_ARRAY(unsigned long long, histogram, NUM_BUCKETS);
    SHARED_ARRAY(uint32_t, words, WARP);
    Space space{block_sums, block_counts, histogram, words};
    Row row = args.rows.get(block_x());
    int len = int(args.vocab_size);
    Global<float> logits = args.logits.from(int64_t(block_x()) * args.stride);
    Best best = row_best(args, block_x());
    uint32_t token = NO_TOKEN;
    if (best.is_valid && row.temperature < GREEDY_BELOW) {
        token = best.token;
    } else if (best.is_valid) {
        token = draw_token(args, row, logits, len, best.max, space);
    }
    if (thread_id() == 0) {
        args.tokens.set(block_x(), token);
        if (token != NO_TOKEN) {
            args.last_tokens.set(row.slot, token);
            count_token(args, row, token);
        }
    }
}

KERNEL(sample_scan, Args, SCAN_THREADS, scan)
KERNEL(sample_weigh, Args, WEIGH_THREADS, weigh)
KERNEL(sample, Args, THREADS, run)

}  // namespace sample
