"""Writes the training tokens: one long stream of ids with a loss weight for each.

Usage: make_data.py TOKENIZER_JSON OUT_DIR NUM_TOKENS SEED [short]

With "short", it is the last part of training: the mix is `build.SHORT_WEIGHTS`, numbers weigh more.
"""

import os
import sys

import numpy as np
from tokenizers import Tokenizer

import chatml
from corpus import build
from corpus.base import Gen

CHUNK = 4096


def check_pieces(renderer, examples):
    """Encoding piece by piece must equal encoding the rendered whole."""
    for example, (ids, _) in zip(examples, renderer.encode(examples)):
        whole = "".join(text for text, _ in renderer.pieces(example))
        assert renderer.tokenizer.encode(whole, add_special_tokens=False).ids == ids, whole


def main():
    """Generates until there are enough tokens."""
    short = sys.argv[5:] == ["short"]
    renderer = chatml.Renderer(Tokenizer.from_file(sys.argv[1]), short)
    out, want, seed = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    os.makedirs(out, exist_ok=True)
    g = Gen(seed, short=short)
    mix = build.SHORT_WEIGHTS if short else build.WEIGHTS
    check_pieces(renderer, [build.example(g) for _ in range(500)])
    ids = np.zeros(want, np.uint16)
    weights = np.zeros(want, np.uint8)
    at = examples = 0
    while at < want:
        batch = [build.example(g, weights=mix) for _ in range(CHUNK)]
        for tokens, weight in renderer.encode(batch):
            n = min(len(tokens), want - at)
            ids[at : at + n], weights[at : at + n] = tokens[:n], weight[:n]
            at += n
            examples += 1
    np.save(os.path.join(out, "ids.npy"), ids)
    np.save(os.path.join(out, "weights.npy"), weights)
    print(
        f"{examples} examples, {at} tokens, {at / examples:.1f} tokens an example, "
        f"mean weight {weights.mean() / 100:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
