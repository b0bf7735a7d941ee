// The emulated driver's modules: the kernels that were linked in, whatever image is loaded, and
// their launches.
//
// Invariant: a launch's arguments are copied when it is queued, as a driver does.
#include <string.h>

#include "driver.h"

using namespace driver;

/// The first word of a container of images.
constexpr uint32_t FATBIN_MAGIC = 0xBA55ED50;
constexpr int MAX_THREADS = 1024;
constexpr int DEFAULT_SHARED_BYTES = 48 * 1024;
// CUfunction_attribute.
constexpr int SHARED_SIZE_BYTES = 1;
constexpr int MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;

EMULATED int cuModuleLoadData(void** module, const void* image) {
    LOCK;
    TRY(enter_uncaptured("cuModuleLoadData"));
    uint32_t magic = 0;
    memcpy(&magic, image, sizeof(magic));
    if (uint64_t(image) % 8 != 0 || magic != FATBIN_MAGIC) {
        return wrong("cuModuleLoadData", INVALID_IMAGE, "no container of images");
    }
    std::vector<std::unique_ptr<Function>> functions;
    for (auto* kernel = emu::first_registration(); kernel != nullptr; kernel = kernel->next) {
        functions.push_back(
            std::make_unique<Function>(Function{kernel, false, DEFAULT_SHARED_BYTES}));
    }
    void* handle = functions.front().get();
    state().modules[handle] = std::move(functions);
    *module = handle;
    return SUCCESS;
}

EMULATED int cuModuleUnload(void* module) {
    LOCK;
    TRY(enter_uncaptured("cuModuleUnload"));
    TRY(run_all());
    bool was_there = state().modules.erase(module) == 1;
    return was_there ? int(SUCCESS) : wrong("cuModuleUnload", INVALID_HANDLE, "no module");
}

EMULATED int cuModuleGetFunctionCount(unsigned* count, void* module) {
    LOCK;
    TRY(enter("cuModuleGetFunctionCount"));
    auto found = state().modules.find(module);
    if (found == state().modules.end()) {
        return wrong("cuModuleGetFunctionCount", INVALID_HANDLE, "no module");
    }
    *count = unsigned(found->second.size());
    return SUCCESS;
}

EMULATED int cuModuleEnumerateFunctions(void** functions, unsigned count, void* module) {
    LOCK;
    TRY(enter("cuModuleEnumerateFunctions"));
    auto found = state().modules.find(module);
    if (found == state().modules.end() || count > found->second.size()) {
        return wrong("cuModuleEnumerateFunctions", INVALID_VALUE, "no module, or fewer functions");
    }
    for (unsigned i = 0; i < count; i++) {
        functions[i] = found->second[i].get();
    }
    return SUCCESS;
}

static Function* find_function(void* handle) {
    for (auto& [module, functions] : state().modules) {
        for (auto& function : functions) {
            if (function.get() == handle) {
                return function.get();
            }
        }
    }
    return nullptr;
}

EMULATED int cuFuncGetName(const char** name, void* handle) {
    LOCK;
    TRY(enter("cuFuncGetName"));
    Function* function = find_function(handle);
    if (function == nullptr) {
        return wrong("cuFuncGetName", INVALID_HANDLE, "no function");
    }
    *name = function->kernel->name;
    return SUCCESS;
}

EMULATED int cuFuncLoad(void* handle) {
    LOCK;
    TRY(enter_uncaptured("cuFuncLoad"));
    Function* function = find_function(handle);
    if (function == nullptr) {
        return wrong("cuFuncLoad", INVALID_HANDLE, "no function");
    }
    function->is_loaded = true;
    return SUCCESS;
}

EMULATED int cuFuncGetParamInfo(void* handle, size_t index, size_t* offset, size_t* size) {
    LOCK;
    TRY(enter("cuFuncGetParamInfo"));
    Function* function = find_function(handle);
    if (function == nullptr || index > 0) {
        return INVALID_VALUE;
    }
    *offset = 0;
    *size = function->kernel->args_len;
    return SUCCESS;
}

EMULATED int cuFuncGetAttribute(int* value, int attribute, void* handle) {
    LOCK;
    TRY(enter("cuFuncGetAttribute"));
    Function* function = find_function(handle);
    if (function == nullptr || attribute != SHARED_SIZE_BYTES) {
        return wrong("cuFuncGetAttribute", INVALID_VALUE, "attribute %d", attribute);
    }
    // Known only once it runs; the emulator checks the sum then.
    *value = 0;
    return SUCCESS;
}

EMULATED int cuFuncSetAttribute(void* handle, int attribute, int value) {
    LOCK;
    TRY(enter("cuFuncSetAttribute"));
    Function* function = find_function(handle);
    bool fits = value >= 0 && size_t(value) <= emu::MAX_SHARED_BYTES;
    if (function == nullptr || attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES || !fits) {
        return wrong("cuFuncSetAttribute", INVALID_VALUE, "attribute %d, %d", attribute, value);
    }
    function->max_dynamic_shared_bytes = value;
    return SUCCESS;
}

EMULATED int cuLaunchKernel(void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                            unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                            void* stream_handle, void** params, void** extra) {
    LOCK;
    TRY(enter("cuLaunchKernel"));
    Function* function = find_function(handle);
    Stream* stream = find_stream(stream_handle);
    if (function == nullptr || stream == nullptr) {
        return wrong("cuLaunchKernel", INVALID_HANDLE, "no function or no stream");
    }
    const emu::Registration& kernel = *function->kernel;
    bool has_grid = grid_x > 0 && grid_y > 0 && grid_z > 0 && grid_x <= 0x7FFFFFFF &&
                    grid_y <= 65535 && grid_z <= 65535;
    bool has_block = block_x > 0 && block_x <= MAX_THREADS && block_y == 1 && block_z == 1;
    if (!has_grid || !has_block || params == nullptr || extra != nullptr) {
        return wrong(kernel.name, INVALID_VALUE, "grid %u %u %u of %u threads", grid_x, grid_y,
                     grid_z, block_x);
    }
    if (int(shared) > function->max_dynamic_shared_bytes) {
        return wrong(kernel.name, INVALID_VALUE, "%u bytes of shared memory, %d allowed", shared,
                     function->max_dynamic_shared_bytes);
    }
    if (stream->is_capturing && !function->is_loaded) {
        stream->is_invalid = true;
        return wrong(kernel.name, CAPTURE_UNSUPPORTED, "would be loaded while capturing");
    }
    Node node{function, {grid_x, grid_y, grid_z}, block_x, shared, {}};
    node.args.resize((kernel.args_len + 7) / 8);
    memcpy(node.args.data(), params[0], kernel.args_len);
    if (stream->is_capturing) {
        stream->captured->nodes.push_back(std::move(node));
        return SUCCESS;
    }
    queue(*stream, [node = std::move(node)] { return run_node(node); });
    return SUCCESS;
}
