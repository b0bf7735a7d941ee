// The emulator's state: a block's threads as fibres, its shared memory with a shadow, and what is
// checked at each access.
//
// One launch runs on the calling thread, block after block; a fibre runs until it has to wait for
// others. Shadows remember who wrote and read each two bytes of shared memory, and of the global
// memory that may be written, last and when: a missing barrier is seen in every order of execution,
// not only in an unlucky one.
//
// Invariant: the first mistake ends the launch; its message names the kernel, block and thread.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace emu {

constexpr int WARP_LANES = 32;
constexpr int MAX_THREADS = 1024;
/// What a block may use on sm_86, 89 and 120, after opting in.
constexpr size_t MAX_SHARED_BYTES = 99 * 1024;
/// What may be declared statically.
constexpr size_t MAX_STATIC_BYTES = 48 * 1024;
/// Bytes that share a shadow: no kernel may let two threads write the halves of one granule.
constexpr size_t GRANULE = 2;

/// Memory that a launch may touch.
struct Region {
    const unsigned char* base;
    size_t len;
    uint32_t is_writable;
};

/// Who touched a granule last, and when.
struct Stamp {
    /// Number of block-wide barriers passed, over all blocks.
    uint32_t epoch;
    /// Number of warp-wide barriers since.
    uint16_t warp_epoch;
    uint8_t warp;
    uint8_t lane;
};
constexpr uint8_t MANY = 0xFF;
constexpr uint8_t ATOMIC = 0xFE;

struct Granule {
    Stamp writer;
    Stamp reader;
};

/// As `Granule`, of global memory, which all blocks of a launch share.
struct GlobalGranule {
    Granule in_block;
    /// The launch (its first epoch) in which more than one block read it, or added to it.
    uint32_t read_by_blocks;
    uint32_t added_to_by_blocks;
};

constexpr size_t PAGE_BYTES = 4096;
struct Page {
    GlobalGranule granules[PAGE_BYTES / GRANULE];
};

/// Shadow pages of the global memory that was touched.
struct GlobalShadow {
    /// What is kept from launch to launch: about a hundred megabytes.
    static constexpr size_t MAX_PAGES = 2048;
    static constexpr size_t NUM_RECENT = 64;
    std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
    struct Recent {
        uintptr_t number;
        Page* page;
    };
    Recent recent[NUM_RECENT];
};

/// A copy that was started and has not landed.
struct AsyncCopy {
    size_t to;
    const unsigned char* from;
    int num_bytes;
    uint64_t group;
};

enum class Wait { None, Warp, Block, Done };

struct Fiber {
    void* stack_pointer;
    unsigned char* stack;
    void* sanitizer_stack;
    Wait wait;
    int thread;
    uint8_t warp;
    uint8_t lane;
    uint64_t group;
    std::deque<AsyncCopy> copies;
};

/// A warp-wide operation: what it is called in a message, and what it does once all lanes came.
struct Collective {
    const char* name;
    /// `lanes[i]` is what lane `i` brought; results go to the same place.
    void (*run)(struct Context& context, int warp, void** lanes, int argument);
};

struct WarpState {
    const Collective* pending;
    int line;
    int argument;
    int num_arrived;
    int num_waiting_for_block;
    int num_done;
    uint16_t epoch;
    void* lanes[WARP_LANES];
};

struct StaticArray {
    const void* site;
    size_t offset;
};

struct Context {
    // The launch.
    const char* kernel;
    void (*entry)(const void*);
    const void* args;
    int num_threads;
    uint32_t grid[3];
    std::vector<Region> regions;
    size_t last_region;
    uint32_t launch_epoch;
    GlobalShadow global_shadow;
    // The block.
    uint32_t block[3];
    uint32_t epoch;
    uint32_t first_epoch;
    int num_at_barrier;
    int barrier_line;
    int num_done;
    unsigned char* arena;
    size_t dynamic_bytes;
    size_t static_bytes;
    std::vector<StaticArray> statics;
    std::vector<Granule> shadow;
    std::vector<uint8_t> in_flight;
    std::vector<Fiber> fibers;
    std::vector<WarpState> warps;
    /// The order in which they run: warps, and the lanes of each.
    std::vector<uint32_t> warp_order;
    std::vector<uint32_t> lane_order;
    // The machine.
    Fiber* fiber;
    void* main_stack_pointer;
    void* main_sanitizer_stack;
    const void* main_stack_bottom;
    size_t main_stack_len;
    bool has_failed;
    std::string error;
};

extern __thread Context* current;

/// Ends the launch; does not return.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

enum class Access { Read, Write, Atomic };
/// Checks `num_bytes` of global memory and notes the access of the running fibre. `bytes`: what a
/// write is about to put there.
void check_global(const void* at, size_t num_bytes, size_t alignment, Access access,
                  const void* bytes = nullptr);
/// Notes an access to writable global memory; ends the launch where it is a race.
void note_global(Context& c, const unsigned char* at, size_t num_bytes, Access access,
                 const void* bytes);

/// Whether an access of the running block noted in `stamp` is not ordered before one that `fiber`
/// makes now.
inline bool conflicts(const Context& c, const Stamp& stamp, const Fiber& fiber) {
    if (stamp.epoch != c.epoch) {
        return false;
    }
    if (stamp.warp != fiber.warp) {
        return true;
    }
    return stamp.lane != fiber.lane && stamp.warp_epoch == c.warps[fiber.warp].epoch;
}

/// Adds a read to those since the block's last barrier.
inline void note_read(const Context& c, Stamp& reader, const Stamp& own) {
    if (reader.epoch != c.epoch) {
        reader = own;
    } else if (reader.warp != own.warp) {
        reader.warp = MANY;
    } else if (reader.warp_epoch != own.warp_epoch) {
        reader = own;
    } else if (reader.lane != own.lane) {
        reader.lane = MANY;
    }
}

/// Checks `num_bytes` of shared memory from `offset` on and notes the access of `fiber`.
void check_shared(Fiber& fiber, size_t offset, size_t num_bytes, size_t alignment, Access access);

size_t static_shared(const void* site, size_t num_bytes);
size_t dynamic_shared_at(size_t offset, size_t num_bytes);

void wait_for_block(int line);
void wait_for_warp(const Collective& collective, void* lane, int argument, int line);

void start_copy(size_t to, const void* from, int num_bytes);
void commit_copies();
void wait_for_copies(uint64_t num_young_groups);

/// Switches to the main context; comes back when the fibre is resumed.
void yield();
/// Runs `fiber` until it yields.
void resume(Fiber& fiber);
/// Makes `fiber` start at the kernel's entry when it is resumed.
void prepare(Fiber& fiber);

/// A kernel, known by its name from the start of the program.
struct Registration {
    Registration(const char* name, void (*entry)(const void*), size_t args_len, int max_threads);
    const char* name;
    void (*entry)(const void*);
    size_t args_len;
    int max_threads;
    const Registration* next;
};

/// The kernels, one behind the other.
const Registration* first_registration();

/// A launch, as the test harness or the emulated driver describes it.
struct Launch {
    const char* kernel;
    const void* args;
    size_t args_len;
    uint32_t grid[3];
    uint32_t num_threads;
    uint32_t shared_bytes;
    uint64_t seed;
    const Region* regions;
    size_t num_regions;
    char* error;
    size_t error_len;
};

}  // namespace emu

/// Runs a launch; 0, or 1 with a message.
extern "C" int hotspare_emu_launch(const emu::Launch* launch);
