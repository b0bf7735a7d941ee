"""Runs llama.cpp for `hotspare-benches quantized`: one JSON request a line, one JSON answer a line.

    {"op": "load", "path": FILE, "threads": N, "streams": N, "context": TOKENS, "chunk": TOKENS}
    {"op": "prefill", "tokens": N}                    seconds for one prompt
    {"op": "decode", "streams": N, "context": TOKENS, "steps": N}       seconds for all the steps
    {"op": "close"}                                   frees the model

Needs `pip install llama-cpp-python`. Only its binding of the C library is used: batches of several
sequences go straight to `llama_decode`. Times are of `llama_decode` alone; no token is drawn, which
favours llama.cpp a little.
"""

import ctypes
import json
import sys
import time

import llama_cpp as ll


class Engine:
    """A model and a context with room for `streams` sequences."""

    def __init__(self, path, threads, streams, context, chunk):
        self.model = ll.llama_model_load_from_file(
            path.encode(), ll.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self.vocab_size = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        params = ll.llama_context_default_params()
        params.n_ctx = streams * context
        params.n_batch = params.n_ubatch = chunk
        params.n_seq_max = streams
        params.n_threads = params.n_threads_batch = threads
        self.context = ll.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp cannot make a context")
        self.memory = ll.llama_get_memory(self.context)
        self.batch = ll.llama_batch_init(chunk, 0, 1)
        self.chunk = chunk

    def close(self):
        ll.llama_batch_free(self.batch)
        ll.llama_free(self.context)
        ll.llama_model_free(self.model)

    def run(self, entries):
        """Decodes (sequence, position, wants logits) entries in one batch."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, (sequence, position, wants_logits) in enumerate(entries):
            batch.token[i] = (7 * position + 3 + 13 * sequence) % self.vocab_size
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wants_logits
        start = time.perf_counter()
        if ll.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        # The call may return before the work is done; asking for a logit waits for it.
        ctypes.cast(
            ll.llama_get_logits_ith(self.context, -1), ctypes.POINTER(ctypes.c_float)
        )[0]
        return time.perf_counter() - start

    def prefill(self, tokens, sequence=0):
        seconds = 0.0
        for first in range(0, tokens, self.chunk):
            end = min(tokens, first + self.chunk)
            entries = [(sequence, p, p == end - 1) for p in range(first, end)]
            seconds += self.run(entries)
        return seconds

    def decode(self, streams, context, steps):
        ll.llama_memory_clear(self.memory, False)
        for sequence in range(streams):
            self.prefill(context, sequence)
        times = [
            self.run([(sequence, context + step, True) for sequence in range(streams)])
            for step in range(steps)
        ]
        return sum(times)


def main():
    # The library prints to stderr; only what goes wrong is of interest.
    callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    quiet = callback(lambda level, text, data: None)
    ll.llama_log_set(quiet, None)
    ll.llama_backend_init()
    engine = None
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        try:
            answer = {}
            if op == "load":
                engine = Engine(**request)
            elif op == "close":
                engine.close()
                engine = None
            elif op == "prefill":
                ll.llama_memory_clear(engine.memory, False)
                answer["seconds"] = engine.prefill(request["tokens"])
            else:
                answer["seconds"] = engine.decode(**request)
        except RuntimeError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
