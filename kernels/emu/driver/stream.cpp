// The emulated driver's streams, events, captures and graphs.
//
// Invariant: a stream's operations run in the order in which they were queued, each once, and never
// before they were queued; when they run is up to the seed until somebody waits.
#include <time.h>

#include "driver.h"

using namespace driver;

namespace driver {

Stream* find_stream(void* handle) {
    Stream* stream = static_cast<Stream*>(handle);
    return state().streams.count(stream) == 0 ? nullptr : stream;
}

int run_until(Stream& stream, uint64_t last) {
    State& s = state();
    while (stream.num_done < last && s.lost == SUCCESS) {
        std::function<int()> work = std::move(stream.queue.front());
        stream.queue.pop_front();
        stream.num_done += 1;
        s.lost = work();
    }
    return s.lost;
}

int run_all() {
    for (auto& [stream, owned] : state().streams) {
        TRY(run_until(*stream, stream->num_queued));
    }
    return SUCCESS;
}

void queue(Stream& stream, std::function<int()> work) {
    State& s = state();
    stream.queue.push_back(std::move(work));
    stream.num_queued += 1;
    s.random = s.random * 6364136223846793005u + 1442695040888963407u;
    // Now and then the card catches up, all the way or in part.
    uint64_t draw = s.random >> 33;
    if (draw % 16 == 0) {
        uint64_t waiting = stream.num_queued - stream.num_done;
        run_until(stream, stream.num_done + (draw / 16) % (waiting + 1));
    }
}

Executable::Executable(std::vector<Node> nodes, size_t num_bytes)
    : nodes(std::move(nodes)), num_bytes(num_bytes) {
    state().used_bytes += num_bytes;
}

Executable::~Executable() { state().used_bytes -= num_bytes; }

}  // namespace driver

EMULATED int cuStreamCreate(void** handle, unsigned) {
    LOCK;
    TRY(enter_uncaptured("cuStreamCreate"));
    auto stream = std::make_unique<Stream>();
    *handle = stream.get();
    state().streams[stream.get()] = std::move(stream);
    return SUCCESS;
}

EMULATED int cuStreamDestroy_v2(void* handle) {
    LOCK;
    TRY(enter("cuStreamDestroy"));
    Stream* stream = find_stream(handle);
    if (stream == nullptr) {
        return wrong("cuStreamDestroy", INVALID_HANDLE, "no stream");
    }
    run_until(*stream, stream->num_queued);
    state().streams.erase(stream);
    return SUCCESS;
}

EMULATED int cuStreamSynchronize(void* handle) {
    LOCK;
    TRY(enter("cuStreamSynchronize"));
    Stream* stream = find_stream(handle);
    if (stream == nullptr) {
        return wrong("cuStreamSynchronize", INVALID_HANDLE, "no stream");
    }
    if (stream->is_capturing) {
        stream->is_invalid = true;
        return wrong("cuStreamSynchronize", CAPTURE_UNSUPPORTED, "while it is captured");
    }
    return run_until(*stream, stream->num_queued);
}

EMULATED int cuEventCreate(void** handle, unsigned flags) {
    LOCK;
    TRY(enter("cuEventCreate"));
    auto event = std::make_unique<Event>();
    // CU_EVENT_DISABLE_TIMING
    event->has_timing = (flags & 2) == 0;
    *handle = event.get();
    state().events[event.get()] = std::move(event);
    return SUCCESS;
}

static Event* find_event(void* handle) {
    Event* event = static_cast<Event*>(handle);
    return state().events.count(event) == 0 ? nullptr : event;
}

EMULATED int cuEventDestroy_v2(void* handle) {
    LOCK;
    TRY(enter("cuEventDestroy"));
    Event* event = find_event(handle);
    if (event == nullptr) {
        return wrong("cuEventDestroy", INVALID_HANDLE, "no event");
    }
    // What is queued writes to it.
    TRY(run_all());
    state().events.erase(event);
    return SUCCESS;
}

static double now_s() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

EMULATED int cuEventRecord(void* handle, void* stream_handle) {
    LOCK;
    TRY(enter("cuEventRecord"));
    Event* event = find_event(handle);
    Stream* stream = find_stream(stream_handle);
    if (event == nullptr || stream == nullptr) {
        return wrong("cuEventRecord", INVALID_HANDLE, "no event or no stream");
    }
    if (stream->is_capturing) {
        stream->is_invalid = true;
        return wrong("cuEventRecord", CAPTURE_UNSUPPORTED, "events are not captured here");
    }
    event->stream = stream;
    event->after = stream->num_queued + 1;
    queue(*stream, [event] {
        event->seconds = now_s();
        return int(SUCCESS);
    });
    return SUCCESS;
}

EMULATED int cuEventSynchronize(void* handle) {
    LOCK;
    TRY(enter_uncaptured("cuEventSynchronize"));
    Event* event = find_event(handle);
    if (event == nullptr) {
        return wrong("cuEventSynchronize", INVALID_HANDLE, "no event");
    }
    return event->after == 0 ? int(SUCCESS) : run_until(*event->stream, event->after);
}

EMULATED int cuEventElapsedTime_v2(float* ms, void* start_handle, void* end_handle) {
    LOCK;
    TRY(enter("cuEventElapsedTime"));
    Event* ends[] = {find_event(start_handle), find_event(end_handle)};
    for (Event* event : ends) {
        if (event == nullptr || !event->has_timing || event->after == 0) {
            return wrong("cuEventElapsedTime", INVALID_HANDLE, "an event without a time");
        }
        if (event->stream->num_done < event->after) {
            return NOT_READY;
        }
    }
    *ms = float((ends[1]->seconds - ends[0]->seconds) * 1e3);
    return SUCCESS;
}

EMULATED int cuEventElapsedTime(float* ms, void* start, void* end) {
    return cuEventElapsedTime_v2(ms, start, end);
}

EMULATED int cuStreamBeginCapture_v2(void* handle, int) {
    LOCK;
    TRY(enter_uncaptured("cuStreamBeginCapture"));
    Stream* stream = find_stream(handle);
    if (stream == nullptr) {
        return wrong("cuStreamBeginCapture", INVALID_HANDLE, "no stream");
    }
    stream->is_capturing = true;
    stream->is_invalid = false;
    stream->captured = std::make_unique<Graph>();
    return SUCCESS;
}

EMULATED int cuStreamEndCapture(void* handle, void** graph) {
    LOCK;
    *graph = nullptr;
    TRY(enter("cuStreamEndCapture"));
    Stream* stream = find_stream(handle);
    if (stream == nullptr || !stream->is_capturing) {
        return wrong("cuStreamEndCapture", INVALID_VALUE, "not capturing");
    }
    stream->is_capturing = false;
    std::unique_ptr<Graph> captured = std::move(stream->captured);
    if (stream->is_invalid) {
        return CAPTURE_INVALIDATED;
    }
    *graph = captured.get();
    state().graphs[captured.get()] = std::move(captured);
    return SUCCESS;
}

EMULATED int cuGraphInstantiateWithFlags(void** executable, void* handle, unsigned long long) {
    LOCK;
    TRY(enter("cuGraphInstantiate"));
    State& s = state();
    auto graph = s.graphs.find(static_cast<Graph*>(handle));
    if (graph == s.graphs.end()) {
        return wrong("cuGraphInstantiate", INVALID_HANDLE, "no graph");
    }
    const std::vector<Node>& nodes = graph->second->nodes;
    size_t num_bytes = nodes.size() * s.settings.graph_node_bytes;
    if (num_bytes > free_bytes()) {
        return OUT_OF_MEMORY;
    }
    auto made = std::make_shared<Executable>(nodes, num_bytes);
    *executable = made.get();
    s.executables[made.get()] = std::move(made);
    return SUCCESS;
}

EMULATED int cuGraphDestroy(void* handle) {
    LOCK;
    TRY(enter("cuGraphDestroy"));
    bool was_there = state().graphs.erase(static_cast<Graph*>(handle)) == 1;
    return was_there ? int(SUCCESS) : wrong("cuGraphDestroy", INVALID_HANDLE, "no graph");
}

static std::shared_ptr<Executable> find_executable(void* handle) {
    auto found = state().executables.find(static_cast<Executable*>(handle));
    return found == state().executables.end() ? nullptr : found->second;
}

EMULATED int cuGraphUpload(void* handle, void* stream) {
    LOCK;
    TRY(enter_uncaptured("cuGraphUpload"));
    bool is_known = find_executable(handle) != nullptr && find_stream(stream) != nullptr;
    return is_known ? int(SUCCESS) : wrong("cuGraphUpload", INVALID_HANDLE, "no graph");
}

EMULATED int cuGraphLaunch(void* handle, void* stream_handle) {
    LOCK;
    TRY(enter_uncaptured("cuGraphLaunch"));
    std::shared_ptr<Executable> executable = find_executable(handle);
    Stream* stream = find_stream(stream_handle);
    if (executable == nullptr || stream == nullptr) {
        return wrong("cuGraphLaunch", INVALID_HANDLE, "no graph or no stream");
    }
    state().has_replayed = true;
    queue(*stream, [executable] {
        for (const Node& node : executable->nodes) {
            int code = run_node(node);
            if (code != SUCCESS) {
                return code;
            }
        }
        return int(SUCCESS);
    });
    return SUCCESS;
}

EMULATED int cuGraphExecDestroy(void* handle) {
    LOCK;
    TRY(enter("cuGraphExecDestroy"));
    bool was_there = state().executables.erase(static_cast<Executable*>(handle)) == 1;
    return was_there ? int(SUCCESS) : wrong("cuGraphExecDestroy", INVALID_HANDLE, "no graph");
}
