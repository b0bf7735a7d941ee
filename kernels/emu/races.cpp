// Races on global memory: between threads of a block that no barrier orders, and between blocks of
// one launch, which nothing orders but the launch's end.
//
// Each two bytes of a writable buffer that a launch touches have a shadow, made where they are
// touched first. Blocks run one after the other, so an access with an epoch before the running
// block's first is another block's; one from before the launch's first epoch is forgotten.
//
// Two writes of the same bits are no race: either may come last. Atomic additions race with plain
// accesses, not with each other.
//
// Invariant: a race is seen whatever the order in which its two sides ran.
#include "core.h"

#include <string.h>

namespace emu {

static Page& page_of(GlobalShadow& shadow, uintptr_t number) {
    GlobalShadow::Recent& recent = shadow.recent[number % GlobalShadow::NUM_RECENT];
    if (recent.page == nullptr || recent.number != number) {
        std::unique_ptr<Page>& page = shadow.pages[number];
        if (page == nullptr) {
            page = std::make_unique<Page>();
        }
        recent = {number, page.get()};
    }
    return *recent.page;
}

static bool is_other_block(const Context& c, const Stamp& stamp) {
    return stamp.epoch >= c.launch_epoch && stamp.epoch < c.first_epoch;
}

[[noreturn]] static void fail_race(const Context& c, uintptr_t granule, const char* what,
                                   bool by_block) {
    const Region& region = c.regions[c.last_region];
    size_t at = granule * GRANULE - uintptr_t(region.base);
    fail("data race on global memory at %zu of a buffer of %zu: %s by another %s", at, region.len,
         what, by_block ? "block of the launch" : "thread since the last barrier");
}

/// Notes an access to granule number `g`.
static void note_granule(Context& c, uintptr_t g, GlobalGranule& granule, Access access,
                         bool is_same) {
    const Fiber& fiber = *c.fiber;
    Stamp own{c.epoch, c.warps[fiber.warp].epoch, fiber.warp, fiber.lane};
    Stamp& writer = granule.in_block.writer;
    Stamp& reader = granule.in_block.reader;
    bool is_added_again = access == Access::Atomic && writer.warp == ATOMIC;
    bool by_block = is_other_block(c, writer);
    bool races = by_block || conflicts(c, writer, fiber);
    if (races && !is_added_again && !is_same) {
        fail_race(c, g, "written", by_block);
    }
    if (access != Access::Atomic && granule.added_to_by_blocks == c.launch_epoch) {
        fail_race(c, g, "written", true);
    }
    if (is_other_block(c, reader)) {
        granule.read_by_blocks = c.launch_epoch;
    }
    if (access == Access::Read) {
        note_read(c, reader, own);
        return;
    }
    if (granule.read_by_blocks == c.launch_epoch || conflicts(c, reader, fiber)) {
        fail_race(c, g, "read", granule.read_by_blocks == c.launch_epoch);
    }
    if (is_added_again && by_block) {
        granule.added_to_by_blocks = c.launch_epoch;
    }
    writer = own;
    if (access == Access::Atomic) {
        writer.warp = ATOMIC;
    } else if (races) {
        // Whoever reads it now races with one of the two.
        writer.warp = MANY;
    }
}

void note_global(Context& c, const unsigned char* at, size_t num_bytes, Access access,
                 const void* bytes) {
    constexpr uintptr_t PAGE_LEN = PAGE_BYTES / GRANULE;
    bool is_same = bytes != nullptr && memcmp(at, bytes, num_bytes) == 0;
    uintptr_t first = uintptr_t(at) / GRANULE;
    uintptr_t end = (uintptr_t(at) + num_bytes + GRANULE - 1) / GRANULE;
    Page* page = nullptr;
    for (uintptr_t g = first; g < end; g++) {
        // A struct may lie on two pages.
        if (page == nullptr || g % PAGE_LEN == 0) {
            page = &page_of(c.global_shadow, g / PAGE_LEN);
        }
        note_granule(c, g, page->granules[g % PAGE_LEN], access, is_same);
    }
}

}  // namespace emu
