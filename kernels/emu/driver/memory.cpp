// The emulated driver's memory: the card's, pinned memory of the host, and copies between them.
//
// Invariant: a copy reads its source when it runs, not when it is queued, unless the driver would
// have copied pageable memory first.
#include <stdlib.h>
#include <string.h>

#include "driver.h"

using namespace driver;

/// As cudaMalloc aligns.
constexpr size_t ALIGNMENT = 256;
/// NaN in every float format.
constexpr int POISON = 0xFF;

static void* new_memory(size_t num_bytes) {
    size_t rounded = (num_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    void* memory = aligned_alloc(ALIGNMENT, rounded);
    if (memory != nullptr) {
        memset(memory, POISON, rounded);
    }
    return memory;
}

EMULATED int cuMemAlloc_v2(uint64_t* address, size_t num_bytes) {
    LOCK;
    TRY(enter_uncaptured("cuMemAlloc"));
    State& s = state();
    if (num_bytes == 0) {
        return wrong("cuMemAlloc", INVALID_VALUE, "0 bytes");
    }
    if (s.settings.allocates_once && s.has_replayed) {
        return wrong("cuMemAlloc", INVALID_VALUE, "%zu bytes in a step", num_bytes);
    }
    if (num_bytes > free_bytes()) {
        return OUT_OF_MEMORY;
    }
    void* memory = new_memory(num_bytes);
    if (memory == nullptr) {
        return OUT_OF_MEMORY;
    }
    *address = uint64_t(memory);
    s.allocations[*address] = num_bytes;
    s.used_bytes += num_bytes;
    return SUCCESS;
}

EMULATED int cuMemFree_v2(uint64_t address) {
    LOCK;
    TRY(enter_uncaptured("cuMemFree"));
    State& s = state();
    auto found = s.allocations.find(address);
    if (found == s.allocations.end()) {
        return wrong("cuMemFree", INVALID_VALUE, "no allocation starts there");
    }
    // A driver waits for what is queued.
    TRY(run_all());
    s.used_bytes -= found->second;
    s.allocations.erase(found);
    free(reinterpret_cast<void*>(address));
    return SUCCESS;
}

EMULATED int cuMemGetInfo_v2(size_t* num_free, size_t* total_bytes) {
    LOCK;
    TRY(enter("cuMemGetInfo"));
    *total_bytes = state().settings.memory_bytes;
    *num_free = free_bytes();
    return SUCCESS;
}

EMULATED int cuMemHostAlloc(void** memory, size_t num_bytes, unsigned) {
    LOCK;
    TRY(enter_uncaptured("cuMemHostAlloc"));
    if (state().settings.allocates_once && state().has_replayed) {
        return wrong("cuMemHostAlloc", INVALID_VALUE, "%zu bytes in a step", num_bytes);
    }
    *memory = new_memory(num_bytes);
    if (num_bytes == 0 || *memory == nullptr) {
        return num_bytes == 0 ? INVALID_VALUE : OUT_OF_MEMORY;
    }
    state().pinned[uint64_t(*memory)] = num_bytes;
    return SUCCESS;
}

EMULATED int cuMemFreeHost(void* memory) {
    LOCK;
    TRY(enter_uncaptured("cuMemFreeHost"));
    if (state().pinned.erase(uint64_t(memory)) == 0) {
        return wrong("cuMemFreeHost", INVALID_VALUE, "not pinned by this driver");
    }
    TRY(run_all());
    free(memory);
    return SUCCESS;
}

/// Checks a copy and finds its stream.
static int begin_copy(const char* call, uint64_t device, size_t num_bytes, void* handle,
                      Stream** stream) {
    TRY(enter(call));
    *stream = find_stream(handle);
    if (*stream == nullptr) {
        return wrong(call, INVALID_HANDLE, "no stream");
    }
    if ((*stream)->is_capturing) {
        (*stream)->is_invalid = true;
        return wrong(call, CAPTURE_UNSUPPORTED, "copies are not captured here");
    }
    if (num_bytes == 0 || !holds(state().allocations, device, num_bytes)) {
        return wrong(call, INVALID_VALUE, "%zu bytes that are no allocation's", num_bytes);
    }
    return SUCCESS;
}

EMULATED int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t num_bytes, void* handle) {
    LOCK;
    Stream* stream = nullptr;
    TRY(begin_copy("cuMemcpyHtoDAsync", to, num_bytes, handle, &stream));
    // Pageable memory too is read late: some systems do.
    queue(*stream, [=] {
        memcpy(reinterpret_cast<void*>(to), from, num_bytes);
        return int(SUCCESS);
    });
    return SUCCESS;
}

EMULATED int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t num_bytes, void* handle) {
    LOCK;
    Stream* stream = nullptr;
    TRY(begin_copy("cuMemcpyDtoHAsync", from, num_bytes, handle, &stream));
    queue(*stream, [=] {
        memcpy(to, reinterpret_cast<const void*>(from), num_bytes);
        return int(SUCCESS);
    });
    // To pageable memory the driver copies itself, and returns when it is done.
    if (!holds(state().pinned, uint64_t(to), num_bytes)) {
        return run_until(*stream, stream->num_queued);
    }
    return SUCCESS;
}
