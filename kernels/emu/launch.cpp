// Launches: blocks one after the other, the fibres of a block in turns, barriers and collectives.
//
// The order of blocks, of warps and of lanes comes from a seed: a result may not depend on it.
//
// Invariant: a block ends when all its threads have left, or with a message.
#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <memory>

namespace emu {

__thread Context* current = nullptr;

static const Registration*& registrations() {
    static const Registration* first = nullptr;
    return first;
}

const Registration* first_registration() { return registrations(); }

Registration::Registration(const char* name, void (*entry)(const void*), size_t args_len,
                           int max_threads)
    : name(name), entry(entry), args_len(args_len), max_threads(max_threads),
      next(registrations()) {
    registrations() = this;
}

void fail(const char* format, ...) {
    Context& c = *current;
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    char place[160] = "";
    if (c.fiber != nullptr) {
        snprintf(place, sizeof(place), " (kernel %s, block %u %u %u, thread %d)", c.kernel,
                 c.block[0], c.block[1], c.block[2], c.fiber->thread);
    }
    c.has_failed = true;
    c.error = std::string(text) + place;
    if (c.fiber == nullptr) {
        // Only launches outside a fibre come here, and they check before.
        abort();
    }
    for (;;) {
        yield();
    }
}

void wait_for_block(int line) {
    Context& c = *current;
    Fiber& fiber = *c.fiber;
    WarpState& warp = c.warps[fiber.warp];
    if (c.num_done > 0) {
        fail("a thread has left before the barrier at line %d", line);
    }
    if (warp.num_arrived > 0) {
        fail("divergent warp: some lanes are at the barrier of line %d, others in %s of line %d",
             line, warp.pending->name, warp.line);
    }
    if (c.num_at_barrier > 0 && c.barrier_line != line) {
        fail("divergent block: some threads are at the barrier of line %d, others at line %d",
             c.barrier_line, line);
    }
    c.barrier_line = line;
    c.num_at_barrier += 1;
    warp.num_waiting_for_block += 1;
    if (c.num_at_barrier < c.num_threads) {
        fiber.wait = Wait::Block;
        yield();
        return;
    }
    c.num_at_barrier = 0;
    c.epoch += 1;
    for (WarpState& each : c.warps) {
        each.num_waiting_for_block = 0;
        each.epoch = 0;
    }
    for (int i = 0; i < c.num_threads; i++) {
        c.fibers[i].wait = Wait::None;
    }
}

void wait_for_warp(const Collective& collective, void* lane, int argument, int line) {
    Context& c = *current;
    Fiber& fiber = *c.fiber;
    WarpState& warp = c.warps[fiber.warp];
    if (warp.num_done > 0) {
        fail("divergent warp: %s at line %d without lanes that have left", collective.name, line);
    }
    if (warp.num_waiting_for_block > 0) {
        fail("divergent warp: %s at line %d while other lanes are at the barrier of line %d",
             collective.name, line, c.barrier_line);
    }
    if (warp.num_arrived > 0 && (warp.pending != &collective || warp.line != line)) {
        fail("divergent warp: %s at line %d while other lanes are in %s of line %d",
             collective.name, line, warp.pending->name, warp.line);
    }
    if (warp.num_arrived > 0 && warp.argument != argument) {
        fail("%s at line %d with unlike arguments", collective.name, line);
    }
    warp.pending = &collective;
    warp.line = line;
    warp.argument = argument;
    warp.lanes[fiber.lane] = lane;
    warp.num_arrived += 1;
    if (warp.num_arrived < WARP_LANES) {
        fiber.wait = Wait::Warp;
        yield();
        return;
    }
    collective.run(c, fiber.warp, warp.lanes, argument);
    warp.num_arrived = 0;
    for (int i = 0; i < WARP_LANES; i++) {
        c.fibers[fiber.warp * WARP_LANES + i].wait = Wait::None;
    }
}

static uint64_t next_random(uint64_t& state) {
    state += 0x9E3779B97F4A7C15;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

static void shuffle(std::vector<uint32_t>& order, size_t len, uint64_t& state) {
    order.resize(len);
    for (size_t i = 0; i < len; i++) {
        order[i] = uint32_t(i);
        std::swap(order[i], order[next_random(state) % (i + 1)]);
    }
}

static void start_block(Context& c) {
    c.epoch += 1;
    c.first_epoch = c.epoch;
    c.num_at_barrier = 0;
    c.num_done = 0;
    c.static_bytes = 0;
    c.statics.clear();
    std::fill(c.in_flight.begin(), c.in_flight.end(), 0);
    // NaN in every format, so that what slips through the checks is seen in a result.
    memset(c.arena, 0xFF, MAX_SHARED_BYTES);
    for (WarpState& warp : c.warps) {
        warp = WarpState{};
    }
    for (int i = 0; i < c.num_threads; i++) {
        Fiber& fiber = c.fibers[i];
        fiber.wait = Wait::None;
        fiber.thread = i;
        fiber.warp = uint8_t(i / WARP_LANES);
        fiber.lane = uint8_t(i % WARP_LANES);
        fiber.group = 0;
        fiber.copies.clear();
        prepare(fiber);
    }
}

/// Draws the order in which the block's warps, and the lanes of each, run.
static void shuffle_threads(Context& c, uint64_t& random) {
    shuffle(c.warp_order, c.warps.size(), random);
    c.lane_order.clear();
    std::vector<uint32_t> lanes;
    for (size_t warp = 0; warp < c.warps.size(); warp++) {
        shuffle(lanes, WARP_LANES, random);
        c.lane_order.insert(c.lane_order.end(), lanes.begin(), lanes.end());
    }
}

/// Resumes the lanes of a warp for as long as one of them can go on; whether any could.
static bool run_warp(Context& c, uint32_t warp) {
    bool has_run = false;
    for (bool goes_on = true; goes_on && !c.has_failed;) {
        goes_on = false;
        for (int i = 0; i < WARP_LANES && !c.has_failed; i++) {
            uint32_t first = warp * WARP_LANES;
            Fiber& fiber = c.fibers[first + c.lane_order[first + uint32_t(i)]];
            if (fiber.wait == Wait::None) {
                resume(fiber);
                goes_on = has_run = true;
            }
        }
    }
    return has_run;
}

static void run_block(Context& c, uint64_t& random) {
    start_block(c);
    shuffle_threads(c, random);
    while (c.num_done < c.num_threads && !c.has_failed) {
        bool has_run = false;
        for (size_t i = 0; i < c.warp_order.size() && !c.has_failed; i++) {
            has_run |= run_warp(c, c.warp_order[i]);
        }
        if (!has_run && !c.has_failed) {
            c.has_failed = true;
            c.error = "deadlock: threads wait for others that never come";
        }
    }
}

static void start_launch(Context& c) {
    c.last_region = 0;
    c.has_failed = false;
    c.error.clear();
    // Every block starts a new epoch.
    c.launch_epoch = c.epoch + 1;
    if (c.global_shadow.pages.size() > GlobalShadow::MAX_PAGES) {
        c.global_shadow = GlobalShadow{};
    }
}

static std::unique_ptr<Context> new_context() {
    auto c = std::make_unique<Context>();
    c->epoch = 1;
    c->arena = static_cast<unsigned char*>(aligned_alloc(1024, MAX_SHARED_BYTES));
    c->shadow.resize(MAX_SHARED_BYTES / GRANULE);
    c->in_flight.resize(MAX_SHARED_BYTES / GRANULE);
    c->fibers.resize(MAX_THREADS);
    return c;
}

}  // namespace emu

static std::string check_launch(const emu::Launch& launch, const emu::Registration* kernel) {
    if (kernel == nullptr) {
        return "no such kernel";
    }
    if (launch.args_len != kernel->args_len) {
        return "arguments of " + std::to_string(launch.args_len) +
               " bytes where the kernel takes " + std::to_string(kernel->args_len);
    }
    if (launch.num_threads == 0 || launch.num_threads % 32 != 0 ||
        int(launch.num_threads) > kernel->max_threads) {
        return std::to_string(launch.num_threads) + " threads a block, at most " +
               std::to_string(kernel->max_threads) + " and whole warps";
    }
    if (launch.shared_bytes > emu::MAX_SHARED_BYTES) {
        return "too much shared memory for sm_86: " + std::to_string(launch.shared_bytes) +
               " bytes dynamic, at most " + std::to_string(emu::MAX_SHARED_BYTES);
    }
    if (launch.grid[0] == 0 || launch.grid[1] == 0 || launch.grid[2] == 0 ||
        launch.grid[1] > 65535 || launch.grid[2] > 65535) {
        return "a grid that the card refuses";
    }
    return "";
}

static std::string run_grid(const emu::Launch& launch, const emu::Registration* kernel) {
    thread_local std::unique_ptr<emu::Context> context = emu::new_context();
    emu::Context& c = *context;
    emu::current = &c;
    c.kernel = kernel->name;
    c.entry = kernel->entry;
    c.args = launch.args;
    c.num_threads = int(launch.num_threads);
    c.warps.resize(launch.num_threads / emu::WARP_LANES);
    std::copy(launch.grid, launch.grid + 3, c.grid);
    c.regions.assign(launch.regions, launch.regions + launch.num_regions);
    std::sort(c.regions.begin(), c.regions.end(),
              [](const emu::Region& a, const emu::Region& b) { return a.base < b.base; });
    c.dynamic_bytes = launch.shared_bytes;
    emu::start_launch(c);
    uint64_t random = launch.seed;
    std::vector<uint32_t> order;
    emu::shuffle(order, size_t(launch.grid[0]) * launch.grid[1] * launch.grid[2], random);
    for (uint32_t index : order) {
        c.block[0] = index % launch.grid[0];
        c.block[1] = index / launch.grid[0] % launch.grid[1];
        c.block[2] = index / launch.grid[0] / launch.grid[1];
        emu::run_block(c, random);
        if (c.has_failed) {
            break;
        }
    }
    return c.error;
}

extern "C" int hotspare_emu_launch(const emu::Launch* launch) {
    const emu::Registration* kernel = emu::first_registration();
    while (kernel != nullptr && strcmp(kernel->name, launch->kernel) != 0) {
        kernel = kernel->next;
    }
    std::string error = check_launch(*launch, kernel);
    if (error.empty()) {
        error = run_grid(*launch, kernel);
    }
    if (error.empty()) {
        return 0;
    }
    snprintf(launch->error, launch->error_len, "%s", error.c_str());
    return 1;
}

/// The name of kernel number `index` in no particular order, and the length of its arguments; null
/// after the last.
extern "C" const char* hotspare_emu_kernel(size_t index, size_t* args_len) {
    const emu::Registration* kernel = emu::first_registration();
    while (kernel != nullptr && index > 0) {
        kernel = kernel->next;
        index -= 1;
    }
    if (kernel == nullptr) {
        return nullptr;
    }
    *args_len = kernel->args_len;
    return kernel->name;
}
