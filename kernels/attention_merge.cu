// attention_merge: adds the results of single splits in index order.
//
// Partial results as attention.cu leaves them, [num_splits] items one after the other for each
// merge item. Grid: merge items, key heads. A thread an element.
//
// Invariant: the same operations in the same order as an attention item that has all splits.
#include "attention.cuh"

namespace attention_merge {

using namespace attention;

constexpr int THREADS = 128;

/// Rows whose splits are added; words as in `Item`, where the names agree.
struct MergeItem {
    uint32_t first_token;
    uint32_t first_row;
    uint32_t num_rows;
    uint32_t first_partial;
    uint32_t num_splits;
};

DEVICE void run(const Args& args) {
    int64_t at = 8 * int64_t(block_x());
    MergeItem item{args.items.get(at), args.items.get(at + 2), args.items.get(at + 3),
                   args.items.get(at + 7), args.items.get(at + 6) - args.items.get(at + 5)};
    int head_dim = int(args.head_dim), kv_head = block_y();
    uint32_t group = args.num_heads / args.num_kv_heads;
    for (int i = thread_id(); i < int(item.num_rows) * head_dim; i += THREADS) {
        int row = i / head_dim, column = i % head_dim;
        uint32_t packed = item.first_row + uint32_t(row);
        int head = kv_head * int(group) + int(packed % group);
        State state = first_state(args, head);
        float sum = 0.0f;
        for (uint32_t split = 0; split < item.num_splits; split++) {
            int64_t from = partial_at(args, item.first_partial + split, kv_head, row);
            State of_split{args.partials.get(from + head_dim),
                           args.partials.get(from + head_dim + 1)};
            Factors factors = fold(state, of_split);
            sum = fold_value(sum, args.partials.get(from + column), factors);
        }
        store(args, item.first_token + packed / group, head, column, sum, state.sum);
    }
}

KERNEL(attention_merge, Args, THREADS, run)

}  // namespace attention_merge
