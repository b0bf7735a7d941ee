// resolve_tokens: a step's token ids that only the device knows, from the slots that drew them.
//
// `token_ids[i] = last_tokens[from_slots[i]]` where a slot is named; NO_SLOT leaves the id alone.
// token_ids, from_slots: [tokens], u32; last_tokens: [slots], u32. A thread a token.
//
// Invariant: an id changes only where a slot is named.
#include "device.cuh"

namespace resolve_tokens {

constexpr int THREADS = 128;
constexpr uint32_t NO_SLOT = 0xFFFFFFFFu;

struct Args {
    Global<uint32_t> token_ids;
    Global<const uint32_t> from_slots;
    Global<const uint32_t> last_tokens;
    uint32_t num_tokens;
    uint32_t unused;
};

DEVICE void run(const Args& args) {
    int i = block_x() * THREADS + thread_id();
    if (i >= int(args.num_tokens)) {
        return;
    }
    uint32_t slot = args.from_slots.get(i);
    if (slot != NO_SLOT) {
        args.token_ids.set(i, args.last_tokens.get(slot));
    }
}

KERNEL(resolve_tokens, Args, THREADS, run)

}  // namespace resolve_tokens
