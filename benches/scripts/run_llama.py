"""Runs llama.cpp for `hotspare-benches quantized`: one JSON request a line, one JSON answer a line.

    {"op": "load", "path": FILE, "threads": N, "streams": N, "context": TOKENS, "room": TOKENS}
        loads a model and reads a prompt of `context` tokens into each of `streams` sequences, which
        have `room` tokens each
    {"op": "prefill", "tokens": N}
        seconds for one prompt, in a sequence of its own
    {"op": "decode", "streams": N, "steps": N}
        seconds for the steps, each a token for every stream
    {"op": "close"}
        frees the model

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
    """A model, and `streams` sequences at position `context`."""

    def __init__(self, path, threads, streams, context, room):
        self.model = ll.llama_model_load_from_file(
            path.encode(), ll.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self.vocab_size = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        params = ll.llama_context_default_params()
        params.n_ctx = (streams + 1) * room
        params.n_batch = params.n_ubatch = room
        params.n_seq_max = streams + 1
        params.n_threads = params.n_threads_batch = threads
        self.context = ll.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp cannot make a context")
        self.memory = ll.llama_get_memory(self.context)
        self.batch = ll.llama_batch_init(room, 0, 1)
        self.streams, self.start = streams, context
        for sequence in range(streams):
            self.read(sequence, context)

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

    def read(self, sequence, tokens):
        return self.run([(sequence, p, p == tokens - 1) for p in range(tokens)])

    def prefill(self, tokens):
        ll.llama_memory_seq_rm(self.memory, self.streams, 0, -1)
        return self.read(self.streams, tokens)

    def decode(self, streams, steps):
        for sequence in range(streams):
            ll.llama_memory_seq_rm(self.memory, sequence, self.start, -1)
        times = [
            self.run([(sequence, self.start + step, True) for sequence in range(streams)])
            for step in range(steps)
        ]
        return sum(times)


def main():
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
                answer["seconds"] = engine.prefill(**request)
            else:
                answer["seconds"] = engine.decode(**request)
        except RuntimeError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
