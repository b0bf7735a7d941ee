// The conversions of types.cuh as a kernel, so that their bits can be compared with other
// implementations on the host and on the card.
//
// Invariant: one element a thread; nothing but the conversion.
#include "device.cuh"

namespace conversions {

struct Args {
    Global<const float> x;
    Global<const uint16_t> halves;
    /// f16, then bf16, of each element of `x`.
    Global<uint16_t> rounded;
    /// From f16, then from bf16, of each element of `halves`.
    Global<float> widened;
    uint32_t len;
    uint32_t unused;
};

DEVICE void convert(const Args& args) {
    int64_t i = int64_t(block_x()) * num_threads() + thread_id();
    if (i >= args.len) {
        return;
    }
    float x = args.x.get(i);
    args.rounded.set(2 * i, from_f32<f16>(x).bits);
    args.rounded.set(2 * i + 1, from_f32<bf16>(x).bits);
    uint16_t bits = args.halves.get(i);
    args.widened.set(2 * i, to_f32(f16{bits}));
    args.widened.set(2 * i + 1, to_f32(bf16{bits}));
}

KERNEL(conversions, Args, 256, convert)

}  // namespace conversions
