// A CUDA driver that runs kernels on the emulator: a `libcuda.so.1` for tests, so that the code that
// talks to a card runs on machines without one.
//
// It is stricter and slower than a card. Work is queued and runs late, at an event or a wait, or at
// a moment that a seed chooses: what relies on a copy or a kernel being over too early reads poison
// or another step's bytes. What a driver forbids while a graph is captured ends the capture. An
// error of a kernel is the context's end, and every later call says so.
//
// Invariant: nothing is reported that a real driver would not report; a wrong use is also written
// to stderr, with the call's name.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../core.h"

namespace driver {

// What follows is used by the library for products too, which is another file.
#pragma GCC visibility push(default)

/// `CUresult`, by its published numbers.
enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    ECC_UNCORRECTABLE = 214,
    INVALID_HANDLE = 400,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_TIMEOUT = 702,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

/// A kernel as a module knows it.
struct Function {
    const emu::Registration* kernel;
    bool is_loaded;
    int max_dynamic_shared_bytes;
};

/// One launch: what a queue and a graph hold.
struct Node {
    const Function* function;
    uint32_t grid[3];
    uint32_t num_threads;
    uint32_t shared_bytes;
    std::vector<uint64_t> args;
};

struct Graph {
    std::vector<Node> nodes;
};

/// A graph that can be launched; its memory is the card's until the last launch is over.
struct Executable {
    explicit Executable(std::vector<Node> nodes, size_t num_bytes);
    ~Executable();
    std::vector<Node> nodes;
    size_t num_bytes;
};

struct Stream {
    std::deque<std::function<int()>> queue;
    /// Operations that were queued, and of these those that are over.
    uint64_t num_queued = 0;
    uint64_t num_done = 0;
    bool is_capturing = false;
    bool is_invalid = false;
    std::unique_ptr<Graph> captured;
};

struct Event {
    bool has_timing = false;
    Stream* stream = nullptr;
    /// The operation that it waits for, counted from one; 0: never recorded.
    uint64_t after = 0;
    double seconds = 0.0;
};

/// What `EMULATED_CUDA` says: `key=value` with commas between.
struct Settings {
    int cuda_version = 13000;
    int num_cards = 1;
    int major = 8;
    int minor = 6;
    size_t memory_bytes = size_t(2) << 30;
    size_t graph_node_bytes = 0;
    uint64_t seed = 1;
    /// `fail=CALL@N:CODE`: the N-th call of a function (from 1) fails with a code.
    std::string fail_call;
    uint64_t fail_at = 0;
    int fail_code = 0;
    /// `launch_error=N:CODE`: the N-th kernel that runs ends the context with a code.
    uint64_t launch_error_at = 0;
    int launch_error_code = 0;
    /// `others_mb=N:CALLS`: other processes use N megabytes until `cuMemGetInfo` was called so often.
    size_t others_bytes = 0;
    uint64_t others_until = 0;
    /// `allocates_once=1`: memory that is asked for after the first replay of a graph is a wrong use.
    bool allocates_once = false;
    /// `once=FILE`: a fault happens in the one process that can make the file.
    std::string once;
};

struct State {
    std::recursive_mutex mutex;
    Settings settings;
    bool is_initialized = false;
    int num_retained = 0;
    /// The error that ended the context.
    int lost = SUCCESS;
    std::map<uint64_t, size_t> allocations;
    std::map<uint64_t, size_t> pinned;
    std::map<Stream*, std::unique_ptr<Stream>> streams;
    std::map<Event*, std::unique_ptr<Event>> events;
    std::map<Graph*, std::unique_ptr<Graph>> graphs;
    std::map<Executable*, std::shared_ptr<Executable>> executables;
    std::map<void*, std::vector<std::unique_ptr<Function>>> modules;
    size_t used_bytes = 0;
    bool has_replayed = false;
    uint64_t random = 1;
    uint64_t num_launches = 0;
    std::map<std::string, uint64_t> num_calls;
};

State& state();
/// The context that this thread made current.
void*& current_context();

/// Says on stderr what a call got wrong, and gives the code back.
int wrong(const char* call, int code, const char* format, ...)
    __attribute__((format(printf, 3, 4)));
/// Whether the setting wants this call of `call` to fail now.
int injected(const char* call);
/// What every call but the first few checks: initialized, not lost, a context where one is needed.
int enter(const char* call, bool needs_context = true);
/// As `enter`, for calls that a driver refuses while a stream of this thread is captured.
int enter_uncaptured(const char* call);

/// Queues `work`; some of what is queued may run now.
void queue(Stream& stream, std::function<int()> work);
/// Runs what was queued up to operation number `last`.
int run_until(Stream& stream, uint64_t last);
int run_all();
Stream* find_stream(void* handle);
/// Bytes of the card that nobody uses.
size_t free_bytes();
/// Runs one kernel.
int run_node(const Node& node);
/// Whether `len` bytes from `at` on lie in one allocation of `of`.
bool holds(const std::map<uint64_t, size_t>& of, uint64_t at, size_t len);

#pragma GCC visibility pop

}  // namespace driver

/// One call at a time.
#define LOCK std::lock_guard<std::recursive_mutex> lock(::driver::state().mutex)
/// Returns what `call` says, where that is no success.
#define TRY(call)                          \
    do {                                   \
        int code_ = (call);                \
        if (code_ != ::driver::SUCCESS) {  \
            return code_;                  \
        }                                  \
    } while (0)
/// A function of the driver.
#define EMULATED extern "C" __attribute__((visibility("default")))
