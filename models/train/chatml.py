"""Renders examples with the very chat template that ships, and turns them into token ids.

The loss weight of a token says how much training cares about it: full for what the assistant
writes and for plain text, little for what users write, least for tool schemas; and most for short
answers with numbers, where one wrong token makes the whole answer wrong.
"""

import json
import os
import re

import jinja2

BOS, EOS, START, END = "<|bos|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = [BOS, EOS, START, END, "<|pad|>"]
MARKERS = ["<tool_call>", "</tool_call>", "<tools>", "</tools>"]
HERE = os.path.dirname(os.path.abspath(__file__))
TURN = re.compile(r"(<\|im_start\|>assistant\n)(.*?<\|im_end\|>)", re.S)
WEIGHT_ANSWER, WEIGHT_PROMPT, WEIGHT_TOOLS, WEIGHT_NUMBERS = 100, 15, 4, 250
NUMBERS = re.compile(r"(?=.*\d).{1,160}<\|im_end\|>", re.S)


def template_text():
    """The chat template's source."""
    with open(os.path.join(HERE, "chat_template.jinja"), encoding="utf-8") as f:
        return f.read()


def compile_template():
    """The chat template in the environment that transformers gives it."""
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda x, **_: json.dumps(x, ensure_ascii=False)
    return env.from_string(template_text())


class Renderer:
    """Text and weighted token ids of examples."""

    def __init__(self, tokenizer=None, short=False):
        self.template = compile_template()
        self.short = short
        self.tokenizer = tokenizer

    def chat(self, messages, tools=None, add_generation_prompt=False):
        """The rendered text of a conversation."""
        return self.template.render(
            messages=messages,
            tools=tools,
            bos_token=BOS,
            add_generation_prompt=add_generation_prompt,
        )

    def pieces(self, example):
        """The example as a list of (text, weight)."""
        if "text" in example:
            return [(BOS, 0), (example["text"] + EOS, WEIGHT_ANSWER)]
        text = self.chat(example["messages"], example.get("tools"))
        weight = WEIGHT_TOOLS if example.get("tools") else WEIGHT_PROMPT
        out, at = [], 0
        for match in TURN.finditer(text):
            out.append((text[at : match.end(1)], weight))
            numbers = self.short and NUMBERS.fullmatch(match.group(2))
            out.append((match.group(2), WEIGHT_NUMBERS if numbers else WEIGHT_ANSWER))
            at = match.end()
        out.append((text[at:], 0))
        return [piece for piece in out if piece[0]]

    def encode(self, examples):
        """For each example, its token ids and their weights."""
        pieces = [self.pieces(e) for e in examples]
        flat = [text for example in pieces for text, _ in example]
        encoded = iter(self.tokenizer.encode_batch_fast(flat, add_special_tokens=False))
        result = []
        for example in pieces:
            ids, weights = [], []
            for _, weight in example:
                got = next(encoded).ids
                ids += got
                weights += [weight] * len(got)
            result.append((ids, weights))
        return result
