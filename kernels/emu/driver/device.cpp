// The emulated driver's cards and contexts: what there is, and who may use it.
//
// Invariant: a card's name says that it is none.
#include <stdio.h>
#include <string.h>

#include "driver.h"

using namespace driver;

/// Anything that is not null: there is one context a process.
static char the_context;

EMULATED int cuInit(unsigned flags) {
    LOCK;
    TRY(injected("cuInit"));
    if (flags != 0) {
        return wrong("cuInit", INVALID_VALUE, "flags %u", flags);
    }
    if (state().settings.num_cards == 0) {
        return NO_DEVICE;
    }
    state().is_initialized = true;
    return SUCCESS;
}

EMULATED int cuDriverGetVersion(int* version) {
    *version = state().settings.cuda_version;
    return SUCCESS;
}

EMULATED int cuDeviceGetCount(int* count) {
    LOCK;
    TRY(enter("cuDeviceGetCount", false));
    *count = state().settings.num_cards;
    return SUCCESS;
}

EMULATED int cuDeviceGet(int* device, int ordinal) {
    LOCK;
    TRY(enter("cuDeviceGet", false));
    if (ordinal < 0 || ordinal >= state().settings.num_cards) {
        return INVALID_DEVICE;
    }
    *device = ordinal;
    return SUCCESS;
}

EMULATED int cuDeviceGetName(char* name, int len, int device) {
    LOCK;
    TRY(enter("cuDeviceGetName", false));
    snprintf(name, size_t(len), "emulated card %d", device);
    return SUCCESS;
}

EMULATED int cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
    LOCK;
    TRY(enter("cuDeviceGetUuid", false));
    for (int i = 0; i < 16; i++) {
        uuid[i] = (unsigned char)(0xE0 + i);
    }
    uuid[15] = (unsigned char)device;
    return SUCCESS;
}

EMULATED int cuDeviceGetUuid(unsigned char* uuid, int device) {
    return cuDeviceGetUuid_v2(uuid, device);
}

EMULATED int cuDeviceTotalMem_v2(size_t* bytes, int) {
    LOCK;
    TRY(enter("cuDeviceTotalMem", false));
    *bytes = state().settings.memory_bytes;
    return SUCCESS;
}

EMULATED int cuDeviceGetAttribute(int* value, int attribute, int) {
    LOCK;
    TRY(enter("cuDeviceGetAttribute", false));
    const Settings& s = state().settings;
    // CUdevice_attribute, by its published numbers.
    switch (attribute) {
        case 13: *value = 1000000; return SUCCESS;  // clock, kHz
        case 16: *value = 1; return SUCCESS;        // multiprocessors
        case 36: *value = 1000000; return SUCCESS;  // memory clock, kHz
        case 37: *value = 64; return SUCCESS;       // bus width, bits
        case 75: *value = s.major; return SUCCESS;
        case 76: *value = s.minor; return SUCCESS;
        default: return wrong("cuDeviceGetAttribute", INVALID_VALUE, "attribute %d", attribute);
    }
}

EMULATED int cuDevicePrimaryCtxRetain(void** context, int device) {
    LOCK;
    TRY(enter("cuDevicePrimaryCtxRetain", false));
    if (device < 0 || device >= state().settings.num_cards) {
        return INVALID_DEVICE;
    }
    state().num_retained += 1;
    *context = &the_context;
    return SUCCESS;
}

/// With the last release all that is left goes, and is said: a program that opens cards again and
/// again must leave nothing.
EMULATED int cuDevicePrimaryCtxRelease_v2(int) {
    LOCK;
    State& s = state();
    if (s.num_retained == 0) {
        return wrong("cuDevicePrimaryCtxRelease", INVALID_CONTEXT, "was not retained");
    }
    s.num_retained -= 1;
    if (s.num_retained > 0 || s.lost != SUCCESS) {
        return s.lost;
    }
    size_t left[] = {s.allocations.size(), s.pinned.size(),      s.streams.size(),
                     s.events.size(),      s.executables.size(), s.graphs.size(),
                     s.modules.size()};
    size_t total = 0;
    for (size_t n : left) {
        total += n;
    }
    if (total > 0) {
        wrong("cuDevicePrimaryCtxRelease", SUCCESS,
              "left behind: %zu allocations, %zu pinned, %zu streams, %zu events, %zu + %zu graphs, "
              "%zu modules",
              left[0], left[1], left[2], left[3], left[4], left[5], left[6]);
    }
    return SUCCESS;
}

EMULATED int cuCtxSetCurrent(void* context) {
    LOCK;
    TRY(enter("cuCtxSetCurrent", false));
    if (context != nullptr && (context != &the_context || state().num_retained == 0)) {
        return wrong("cuCtxSetCurrent", INVALID_CONTEXT, "no context of this driver");
    }
    current_context() = context;
    return SUCCESS;
}

struct Name {
    int code;
    const char* name;
    const char* text;
};
static const Name NAMES[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {ECC_UNCORRECTABLE, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
};

static const Name* find_name(int code) {
    for (const Name& each : NAMES) {
        if (each.code == code) {
            return &each;
        }
    }
    return nullptr;
}

EMULATED int cuGetErrorName(int code, const char** name) {
    const Name* found = find_name(code);
    *name = found == nullptr ? nullptr : found->name;
    return found == nullptr ? INVALID_VALUE : SUCCESS;
}

EMULATED int cuGetErrorString(int code, const char** text) {
    const Name* found = find_name(code);
    *text = found == nullptr ? nullptr : found->text;
    return found == nullptr ? INVALID_VALUE : SUCCESS;
}
