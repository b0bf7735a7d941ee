"""Loads a trained model and generates from it, for evaluation and by hand.

Usage: sampling.py MODEL_DIR PROMPT...   (a prompt that starts with "raw:" is plain completion)
"""

import json
import os
import sys

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import chatml
from model import Llama


class Spark:
    """A model, its tokenizer and its generation defaults."""

    def __init__(self, folder):
        def read(name):
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                return json.load(f)

        self.config, self.defaults = read("config.json"), read("generation_config.json")
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.renderer = chatml.Renderer(self.tokenizer)
        self.model = Llama(self.config).eval()
        weights = load_file(os.path.join(folder, "model.safetensors"))
        self.model.load_state_dict({k: v.float() for k, v in weights.items()})
        self.ends = set(self.defaults["eos_token_id"])

    def encode(self, text):
        """Token ids of text that already holds its special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    @torch.no_grad()
    def generate(self, ids, max_tokens=256, temperature=None, generator=None):
        """The ids that follow; temperature 0 is greedy, None means the defaults."""
        temperature = self.defaults["temperature"] if temperature is None else temperature
        cache = [[] for _ in range(self.config["num_hidden_layers"])]
        logits, out = self.model(torch.tensor([ids]), cache)[0, -1], []
        while len(out) < max_tokens:
            token = self.pick(logits, temperature, generator)
            if token in self.ends:
                break
            out.append(token)
            logits = self.model(torch.tensor([[token]]), cache)[0, -1]
        return out

    def pick(self, logits, temperature, generator):
        """Temperature, then top-k, then top-p, then one draw."""
        if temperature == 0:
            return int(logits.argmax())
        probs, order = torch.softmax(logits / temperature, -1).sort(descending=True)
        probs, order = probs[: self.defaults["top_k"]], order[: self.defaults["top_k"]]
        probs = probs / probs.sum()
        keep = probs.cumsum(0) - probs < self.defaults["top_p"]
        drawn = torch.multinomial(probs[keep], 1, generator=generator)
        return int(order[keep][drawn])

    def chat(self, messages, tools=None, **options):
        """The assistant's next message as text."""
        text = self.renderer.chat(messages, tools, add_generation_prompt=True)
        return self.tokenizer.decode(self.generate(self.encode(text), **options))

    def complete(self, text, **options):
        """Plain completion of a text."""
        return self.tokenizer.decode(self.generate(self.encode(chatml.BOS + text), **options))


def main():
    """Answers each prompt on the command line."""
    torch.set_num_threads(1)
    spark = Spark(sys.argv[1])
    generator = torch.Generator().manual_seed(0)
    for prompt in sys.argv[2:]:
        if prompt.startswith("raw:"):
            answer = spark.complete(prompt[4:], generator=generator)
        else:
            answer = spark.chat([{"role": "user", "content": prompt}], generator=generator)
        print(f"> {prompt}\n{answer}\n")


if __name__ == "__main__":
    main()
