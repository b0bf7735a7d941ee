// What the emulated driver remembers, what it was told to do, and what every call checks first.
//
// Invariant: a setting that is not understood ends the process: a test that asks for a fault gets it.
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace driver {

[[noreturn]] static void reject(const std::string& setting) {
    fprintf(stderr, "emulated CUDA: EMULATED_CUDA: %s is not understood\n",
            setting.c_str());
    abort();
}

/// `A:B` as two numbers.
static void pair_of(const std::string& setting, const std::string& value, uint64_t& first,
                    int& second) {
    unsigned long long number = 0;
    if (sscanf(value.c_str(), "%llu:%d", &number, &second) != 2) {
        reject(setting);
    }
    first = number;
}

static void apply_setting(Settings& s, const std::string& setting) {
    size_t equals = setting.find('=');
    if (equals == std::string::npos) {
        reject(setting);
    }
    std::string key = setting.substr(0, equals);
    std::string value = setting.substr(equals + 1);
    uint64_t number = strtoull(value.c_str(), nullptr, 10);
    if (key == "cuda") {
        s.cuda_version = int(number);
    } else if (key == "cards") {
        s.num_cards = int(number);
    } else if (key == "sm") {
        s.major = int(number / 10);
        s.minor = int(number % 10);
    } else if (key == "memory_mb") {
        s.memory_bytes = size_t(number) << 20;
    } else if (key == "graph_node_bytes") {
        s.graph_node_bytes = size_t(number);
    } else if (key == "seed") {
        s.seed = number;
    } else if (key == "fail") {
        size_t at = value.find('@');
        if (at == std::string::npos) {
            reject(setting);
        }
        s.fail_call = value.substr(0, at);
        pair_of(setting, value.substr(at + 1), s.fail_at, s.fail_code);
    } else if (key == "launch_error") {
        pair_of(setting, value, s.launch_error_at, s.launch_error_code);
    } else if (key == "others_mb") {
        int until = 0;
        pair_of(setting, value, number, until);
        s.others_bytes = size_t(number) << 20;
        s.others_until = uint64_t(until);
    } else if (key == "allocates_once") {
        s.allocates_once = number != 0;
    } else if (key == "once") {
        s.once = value;
    } else {
        reject(setting);
    }
}

static State* new_state() {
    State* made = new State();
    const char* text = getenv("EMULATED_CUDA");
    std::string rest = text == nullptr ? "" : text;
    while (!rest.empty()) {
        size_t comma = rest.find(',');
        apply_setting(made->settings, rest.substr(0, comma));
        rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    }
    made->random = made->settings.seed;
    return made;
}

// Never freed: threads may call until the very end.
State& state() {
    static State* const the_state = new_state();
    return *the_state;
}

void*& current_context() {
    static thread_local void* context = nullptr;
    return context;
}

int wrong(const char* call, int code, const char* format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(stderr, "emulated CUDA: %s: %s\n", call, text);
    return code;
}

/// Whether this process is the one in which the fault happens.
static bool is_chosen(const Settings& settings) {
    if (settings.once.empty()) {
        return true;
    }
    int file = open(settings.once.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (file < 0) {
        return false;
    }
    close(file);
    return true;
}

int injected(const char* call) {
    State& s = state();
    uint64_t number = ++s.num_calls[call];
    if (s.settings.fail_call == call && s.settings.fail_at == number && is_chosen(s.settings)) {
        return s.settings.fail_code;
    }
    return SUCCESS;
}

int enter(const char* call, bool needs_context) {
    State& s = state();
    if (!s.is_initialized) {
        return wrong(call, NOT_INITIALIZED, "before cuInit");
    }
    if (needs_context && current_context() == nullptr) {
        return wrong(call, INVALID_CONTEXT, "no context is current on this thread");
    }
    if (s.lost != SUCCESS) {
        return s.lost;
    }
    return injected(call);
}

int enter_uncaptured(const char* call) {
    int code = enter(call);
    if (code != SUCCESS) {
        return code;
    }
    for (auto& [stream, owned] : state().streams) {
        if (stream->is_capturing) {
            stream->is_invalid = true;
            return wrong(call, CAPTURE_UNSUPPORTED, "while a graph is captured");
        }
    }
    return SUCCESS;
}

int run_node(const Node& node) {
    State& s = state();
    const emu::Registration& kernel = *node.function->kernel;
    s.num_launches += 1;
    if (s.num_launches == s.settings.launch_error_at && is_chosen(s.settings)) {
        return s.settings.launch_error_code;
    }
    std::vector<emu::Region> regions;
    for (const auto& [at, len] : s.allocations) {
        regions.push_back({reinterpret_cast<const unsigned char*>(at), len, 1});
    }
    char error[640] = "";
    emu::Launch launch{kernel.name,
                     node.args.data(),
                     kernel.args_len,
                     {node.grid[0], node.grid[1], node.grid[2]},
                     node.num_threads,
                     node.shared_bytes,
                     s.settings.seed + s.num_launches,
                     regions.data(),
                     regions.size(),
                     error,
                     sizeof(error)};
    if (hotspare_emu_launch(&launch) == 0) {
        return SUCCESS;
    }
    bool is_misaligned = strstr(error, "misaligned") != nullptr;
    bool is_outside = strstr(error, "out of bounds") != nullptr;
    int code = is_misaligned ? MISALIGNED_ADDRESS : is_outside ? ILLEGAL_ADDRESS : LAUNCH_FAILED;
    return wrong(kernel.name, code, "%s", error);
}

size_t free_bytes() {
    State& s = state();
    bool others_live = s.num_calls["cuMemGetInfo"] < s.settings.others_until;
    size_t used = s.used_bytes + (others_live ? s.settings.others_bytes : 0);
    return used < s.settings.memory_bytes ? s.settings.memory_bytes - used : 0;
}

bool holds(const std::map<uint64_t, size_t>& of, uint64_t at, size_t len) {
    auto after = of.upper_bound(at);
    if (after == of.begin()) {
        return false;
    }
    auto [start, size] = *--after;
    return at - start <= size && len <= size - (at - start);
}

}  // namespace driver
