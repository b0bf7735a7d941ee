// Memory as a kernel sees it: bounds and alignment of global memory, the shadow of shared memory,
// and copies that land at their wait. Races on global memory: races.cpp.
//
// Invariant: an access that the card would get wrong in some order of execution is an error in
// every order.
#include "core.h"

#include <string.h>

#include <algorithm>

namespace emu {

static bool holds(const Region& region, const unsigned char* at, size_t num_bytes) {
    return at >= region.base && num_bytes <= region.len &&
           size_t(at - region.base) <= region.len - num_bytes;
}

void check_global(const void* address, size_t num_bytes, size_t alignment, Access access,
                  const void* bytes) {
    Context& c = *current;
    bool writes = access != Access::Read;
    const unsigned char* at = static_cast<const unsigned char*>(address);
    const char* what = writes ? "write" : "read";
    if (uintptr_t(at) % alignment != 0) {
        fail("misaligned global %s of %zu bytes: address is %zu modulo %zu", what, num_bytes,
             size_t(uintptr_t(at) % alignment), alignment);
    }
    if (c.last_region >= c.regions.size() || !holds(c.regions[c.last_region], at, num_bytes)) {
        auto after = std::upper_bound(
            c.regions.begin(), c.regions.end(), at,
            [](const unsigned char* at, const Region& region) { return at < region.base; });
        if (after == c.regions.begin()) {
            fail("global %s of %zu bytes out of bounds: before every buffer", what, num_bytes);
        }
        c.last_region = size_t(after - c.regions.begin()) - 1;
        const Region& region = c.regions[c.last_region];
        if (!holds(region, at, num_bytes)) {
            fail("global %s of %zu bytes out of bounds: at %zd of a buffer of %zu", what, num_bytes,
                 ssize_t(at - region.base), region.len);
        }
    }
    if (c.regions[c.last_region].is_writable) {
        note_global(c, at, num_bytes, access, bytes);
    } else if (writes) {
        fail("global write of %zu bytes to an input", num_bytes);
    }
}

void check_shared(Fiber& fiber, size_t offset, size_t num_bytes, size_t alignment, Access access) {
    Context& c = *current;
    if (offset % alignment != 0) {
        fail("misaligned shared access of %zu bytes at offset %zu", num_bytes, offset);
    }
    if (offset + num_bytes > c.dynamic_bytes + c.static_bytes) {
        fail("shared access of %zu bytes out of bounds at offset %zu", num_bytes, offset);
    }
    Stamp own{c.epoch, c.warps[fiber.warp].epoch, fiber.warp, fiber.lane};
    size_t end = (offset + num_bytes + GRANULE - 1) / GRANULE;
    for (size_t g = offset / GRANULE; g < end; g++) {
        Granule& granule = c.shadow[g];
        if (c.in_flight[g]) {
            fail("shared memory at offset %zu: a cp.async to it has not been waited for",
                 g * GRANULE);
        }
        bool is_atomic_again = access == Access::Atomic && granule.writer.warp == ATOMIC;
        if (conflicts(c, granule.writer, fiber) && !is_atomic_again) {
            fail("data race on shared memory at offset %zu: written by another thread since the "
                 "last barrier",
                 g * GRANULE);
        }
        if (access != Access::Write && granule.writer.epoch < c.first_epoch) {
            fail("shared memory at offset %zu is read before anything is written to it",
                 g * GRANULE);
        }
        if (access == Access::Read) {
            note_read(c, granule.reader, own);
            continue;
        }
        if (conflicts(c, granule.reader, fiber)) {
            fail("data race on shared memory at offset %zu: read by another thread since the last "
                 "barrier",
                 g * GRANULE);
        }
        granule.writer = own;
        if (access == Access::Atomic) {
            granule.writer.warp = ATOMIC;
        }
    }
}

static void reserve_shared(Context& c) {
    size_t total = c.dynamic_bytes + c.static_bytes;
    if (total > MAX_SHARED_BYTES || c.static_bytes > MAX_STATIC_BYTES) {
        fail("too much shared memory for sm_86: %zu bytes dynamic and %zu static, at most %zu "
             "together and %zu static",
             c.dynamic_bytes, c.static_bytes, MAX_SHARED_BYTES, MAX_STATIC_BYTES);
    }
}

size_t static_shared(const void* site, size_t num_bytes) {
    Context& c = *current;
    for (const StaticArray& array : c.statics) {
        if (array.site == site) {
            return array.offset;
        }
    }
    // Static arrays lie behind dynamic memory, whose length is known from the start.
    size_t start = (c.dynamic_bytes + 127) / 128 * 128 - c.dynamic_bytes;
    size_t offset = c.dynamic_bytes + std::max(start, (c.static_bytes + 15) / 16 * 16);
    c.static_bytes = offset + num_bytes - c.dynamic_bytes;
    c.statics.push_back({site, offset});
    reserve_shared(c);
    return offset;
}

size_t dynamic_shared_at(size_t offset, size_t num_bytes) {
    Context& c = *current;
    if (offset + num_bytes > c.dynamic_bytes) {
        fail("dynamic shared memory up to byte %zu, but the launch has %zu", offset + num_bytes,
             c.dynamic_bytes);
    }
    return offset;
}

void start_copy(size_t to, const void* from, int num_bytes) {
    Context& c = *current;
    Fiber& fiber = *c.fiber;
    if (num_bytes < 0 || num_bytes > 16) {
        fail("cp.async of %d bytes", num_bytes);
    }
    if (num_bytes > 0) {
        check_global(from, size_t(num_bytes), 1, Access::Read);
    }
    // The card faults on a misaligned source even where nothing is read from it.
    if (uintptr_t(from) % 16 != 0) {
        fail("misaligned cp.async source");
    }
    check_shared(fiber, to, 16, 16, Access::Write);
    for (size_t g = to / GRANULE; g < (to + 16) / GRANULE; g++) {
        c.in_flight[g] = 1;
    }
    fiber.copies.push_back({to, static_cast<const unsigned char*>(from), num_bytes, fiber.group});
}

void commit_copies() { current->fiber->group += 1; }

void wait_for_copies(uint64_t num_young_groups) {
    Context& c = *current;
    Fiber& fiber = *c.fiber;
    while (!fiber.copies.empty() && fiber.copies.front().group + num_young_groups < fiber.group) {
        const AsyncCopy& copy = fiber.copies.front();
        for (size_t g = copy.to / GRANULE; g < (copy.to + 16) / GRANULE; g++) {
            c.in_flight[g] = 0;
        }
        check_shared(fiber, copy.to, 16, 16, Access::Write);
        if (copy.num_bytes > 0) {
            // The card may read as late as this.
            check_global(copy.from, size_t(copy.num_bytes), 1, Access::Read);
        }
        memset(c.arena + copy.to, 0, 16);
        memcpy(c.arena + copy.to, copy.from, size_t(copy.num_bytes));
        fiber.copies.pop_front();
    }
}

}  // namespace emu
