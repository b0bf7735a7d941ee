// A `libcublasLt.so.13` beside the emulated driver: dense products, queued on its streams, summed in
// float32 one after the other.
//
// It knows what card/cublaslt.rs asks for, by the numbers that NVIDIA's header gives things, and
// refuses the rest: layouts that do not fit each other, rows that overlap, addresses that are less
// aligned than was promised, a workspace that is less than was allowed.
//
// Invariant: a descriptor is read when a product is queued; matrices are read when it runs.
#include <math.h>
#include <string.h>

#include "../../types.cuh"
#include "driver.h"

namespace {

enum Status : int {
    OK = 0,
    NOT_INITIALIZED = 1,
    ALLOC_FAILED = 3,
    INVALID_VALUE = 7,
    EXECUTION_FAILED = 13,
    NOT_SUPPORTED = 15,
};
/// cudaDataType_t.
enum DataType : int { R_32F = 0, R_16F = 2, R_16BF = 14 };
constexpr int COMPUTE_32F = 68;
constexpr int OP_T = 1;
/// What its ways work in.
constexpr size_t WORKSPACE_BYTES = 1 << 16;

struct Desc {
    int compute_type;
    int scale_type;
    int transposes_a = 0;
};

struct Layout {
    int type;
    uint64_t rows;
    uint64_t columns;
    int64_t leading;
};

struct Preference {
    uint64_t max_workspace_bytes = 0;
    uint32_t alignments[4] = {256, 256, 256, 256};
};

struct Algo {
    uint64_t data[8];
};

struct Heuristic {
    Algo algo;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};

/// The first word of a way that this library chose; the second is the alignment it relies on.
constexpr uint64_t OUR_WAY = 0x0C0FFEE;

size_t size_of(int type) { return type == R_32F ? 4 : 2; }

float load(int type, const void* at, uint64_t i) {
    if (type == R_32F) {
        return static_cast<const float*>(at)[i];
    }
    uint16_t bits = static_cast<const uint16_t*>(at)[i];
    return type == R_16F ? to_f32(f16{bits}) : to_f32(bf16{bits});
}

void store(int type, void* at, uint64_t i, float x) {
    if (type == R_32F) {
        static_cast<float*>(at)[i] = x;
        return;
    }
    uint16_t bits = type == R_16F ? from_f32<f16>(x).bits : from_f32<bf16>(x).bits;
    static_cast<uint16_t*>(at)[i] = bits;
}

/// Whether `d = a^T b` fits together.
int check(const Desc* desc, const Layout* a, const Layout* b, const Layout* c, const Layout* d) {
    if (desc == nullptr || a == nullptr || b == nullptr || c == nullptr || d == nullptr) {
        return INVALID_VALUE;
    }
    if (desc->compute_type != COMPUTE_32F || desc->scale_type != R_32F ||
        desc->transposes_a != OP_T || a->type != b->type || c->type != d->type) {
        return NOT_SUPPORTED;
    }
    bool fits = a->rows == b->rows && d->rows == a->columns && d->columns == b->columns &&
                c->rows == d->rows && c->columns == d->columns && c->leading == d->leading;
    for (const Layout* each : {a, b, d}) {
        fits = fits && each->rows > 0 && each->columns > 0 && each->leading >= int64_t(each->rows);
    }
    return fits ? OK : INVALID_VALUE;
}

uint64_t span(const Layout& matrix) {
    uint64_t last = (matrix.columns - 1) * uint64_t(matrix.leading) + matrix.rows;
    return last * size_of(matrix.type);
}

/// Runs a product whose matrices lie in the card's memory.
int run(const Layout& a, const Layout& b, const Layout& d, const void* at_a, const void* at_b,
        void* at_d, float alpha) {
    for (uint64_t column = 0; column < d.columns; column++) {
        for (uint64_t row = 0; row < d.rows; row++) {
            float sum = 0.0f;
            for (uint64_t k = 0; k < a.rows; k++) {
                float x = load(a.type, at_a, row * uint64_t(a.leading) + k);
                sum += x * load(b.type, at_b, column * uint64_t(b.leading) + k);
            }
            store(d.type, at_d, column * uint64_t(d.leading) + row, alpha * sum);
        }
    }
    return driver::SUCCESS;
}

}  // namespace

EMULATED size_t cublasLtGetVersion() { return 130000; }

EMULATED int cublasLtCreate(void** handle) {
    static char the_handle;
    LOCK;
    // It works in the context that is current.
    if (driver::enter("cublasLtCreate") != driver::SUCCESS) {
        return NOT_INITIALIZED;
    }
    *handle = &the_handle;
    return OK;
}

EMULATED int cublasLtDestroy(void*) { return OK; }

EMULATED int cublasLtMatmulDescCreate(Desc** desc, int compute_type, int scale_type) {
    *desc = new Desc{compute_type, scale_type};
    return OK;
}

EMULATED int cublasLtMatmulDescDestroy(Desc* desc) {
    delete desc;
    return OK;
}

EMULATED int cublasLtMatmulDescSetAttribute(Desc* desc, int attribute, const void* value,
                                            size_t len) {
    // CUBLASLT_MATMUL_DESC_TRANSA
    if (attribute != 3 || len != sizeof(int)) {
        return NOT_SUPPORTED;
    }
    memcpy(&desc->transposes_a, value, len);
    return OK;
}

EMULATED int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns,
                                        int64_t leading) {
    *layout = new Layout{type, rows, columns, leading};
    return OK;
}

EMULATED int cublasLtMatrixLayoutDestroy(Layout* layout) {
    delete layout;
    return OK;
}

EMULATED int cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* value,
                                              size_t len) {
    // CUBLASLT_MATRIX_LAYOUT_COLS
    if (attribute != 3 || len != sizeof(uint64_t)) {
        return NOT_SUPPORTED;
    }
    memcpy(&layout->columns, value, len);
    return OK;
}

EMULATED int cublasLtMatmulPreferenceCreate(Preference** preference) {
    *preference = new Preference();
    return OK;
}

EMULATED int cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return OK;
}

EMULATED int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute,
                                                  const void* value, size_t len) {
    // CUBLASLT_MATMUL_PREF_…: the workspace, the reductions that may be used, four alignments.
    if (attribute == 1 && len == sizeof(uint64_t)) {
        memcpy(&preference->max_workspace_bytes, value, len);
        return OK;
    }
    if (len != sizeof(uint32_t)) {
        return INVALID_VALUE;
    }
    if (attribute >= 5 && attribute <= 8) {
        memcpy(&preference->alignments[attribute - 5], value, len);
        return OK;
    }
    return attribute == 3 ? OK : NOT_SUPPORTED;
}

EMULATED int cublasLtMatmulAlgoGetHeuristic(void* handle, const Desc* desc, const Layout* a,
                                            const Layout* b, const Layout* c, const Layout* d,
                                            const Preference* preference, int num_wanted,
                                            Heuristic* found, int* num_found) {
    *num_found = 0;
    int status = handle == nullptr ? int(NOT_INITIALIZED) : check(desc, a, b, c, d);
    if (status != OK) {
        return status;
    }
    if (num_wanted < 1 || preference->max_workspace_bytes < WORKSPACE_BYTES) {
        return NOT_SUPPORTED;
    }
    uint32_t alignment = 256;
    for (uint32_t each : preference->alignments) {
        alignment = each < alignment ? each : alignment;
    }
    *found = Heuristic{{{OUR_WAY, alignment}}, WORKSPACE_BYTES, OK, 1.0f, {}};
    *num_found = 1;
    return OK;
}

EMULATED int cublasLtMatmulAlgoCheck(void* handle, const Desc* desc, const Layout* a,
                                     const Layout* b, const Layout* c, const Layout* d,
                                     const Algo* algo, Heuristic* found) {
    int status = handle == nullptr ? int(NOT_INITIALIZED) : check(desc, a, b, c, d);
    if (status != OK || algo->data[0] != OUR_WAY) {
        return status != OK ? status : int(INVALID_VALUE);
    }
    *found = Heuristic{*algo, WORKSPACE_BYTES, OK, 1.0f, {}};
    return OK;
}

EMULATED int cublasLtMatmul(void* handle, const Desc* desc, const void* alpha, const void* at_a,
                            const Layout* a, const void* at_b, const Layout* b, const void* beta,
                            const void* at_c, const Layout* c, void* at_d, const Layout* d,
                            const Algo* algo, void* workspace, size_t workspace_bytes,
                            void* stream_handle) {
    LOCK;
    const char* call = "cublasLtMatmul";
    if (int code = driver::enter(call)) {
        return code == driver::OUT_OF_MEMORY ? ALLOC_FAILED : EXECUTION_FAILED;
    }
    driver::Stream* stream = driver::find_stream(stream_handle);
    float one = *static_cast<const float*>(alpha);
    bool is_ours = handle != nullptr && stream != nullptr && algo->data[0] == OUR_WAY;
    if (!is_ours || stream->is_capturing || *static_cast<const float*>(beta) != 0.0f) {
        driver::wrong(call, 0, "no handle, no stream or no way of this library, or captured");
        return INVALID_VALUE;
    }
    if (int status = check(desc, a, b, c, d)) {
        return driver::wrong(call, status, "matrices that do not fit");
    }
    const auto& memory = driver::state().allocations;
    bool is_there = driver::holds(memory, uint64_t(at_a), span(*a)) &&
                    driver::holds(memory, uint64_t(at_b), span(*b)) &&
                    driver::holds(memory, uint64_t(at_d), span(*d)) && at_c == at_d &&
                    workspace_bytes >= WORKSPACE_BYTES &&
                    driver::holds(memory, uint64_t(workspace), workspace_bytes);
    bool is_aligned = true;
    for (const void* at : {at_a, at_b, static_cast<const void*>(at_d)}) {
        is_aligned = is_aligned && uint64_t(at) % algo->data[1] == 0;
    }
    if (!is_there || !is_aligned) {
        return driver::wrong(call, INVALID_VALUE, "memory that is no allocation's, or not aligned");
    }
    driver::queue(*stream, [=, a = *a, b = *b, d = *d] {
        // The workspace is written, as the real one does.
        memset(workspace, 0xFF, WORKSPACE_BYTES);
        return run(a, b, d, at_a, at_b, at_d, one);
    });
    return OK;
}
