"""Measures one model on what training never saw, and writes its model card.

Usage: evaluate.py MODEL_DIR RECIPE_JSON TRAIN_LOG WORK_DIR

Perplexity is over the tokens that the assistant writes (and over raw text), teacher-forced, in
float32. Exact match is greedy. The numbers go to WORK_DIR/evaluation.json, the card to README.md.
"""

import json
import os
import re
import sys

import torch
import torch.nn.functional as F

import card
import chatml
from corpus import build, holdout, lexicon, numbers, stories, tools
from corpus.base import Gen
from sampling import Spark

SPLITS = {
    "train": "fresh examples of the training grammars",
    "names": "held-out names",
    "topics": "held-out topics",
    "patterns": "held-out sentence patterns",
    "numbers": "held-out number pairs and ranges",
}


@torch.no_grad()
def perplexity(spark, examples):
    """exp of the mean negative log likelihood of the full-weight tokens, and their number."""
    total = count = 0.0
    for ids, weights in spark.renderer.encode(examples):
        ids, weights = torch.tensor([ids[:2049]]), torch.tensor(weights[1:2049])
        each = F.cross_entropy(spark.model(ids[:, :-1])[0], ids[0, 1:], reduction="none")
        keep = (weights == chatml.WEIGHT_ANSWER).float()
        total += float((each * keep).sum())
        count += float(keep.sum())
    return float(torch.tensor(total / count).exp()), int(count)


def user(text, system=None):
    """A conversation of one user message."""
    head = [{"role": "system", "content": system}] if system else []
    return head + [{"role": "user", "content": text}]


def arithmetic(spark):
    """Exact match: all basic sums, which training has, and held-out pairs of larger numbers."""
    pairs = {
        "a + b, all pairs up to 10": ("+", 11),
        "a - b, all pairs up to 10": ("-", 11),
        "a x b, all pairs up to 10": ("*", 11),
        "a + b, held-out pairs below 100": ("+", 100),
        "a - b, held-out pairs below 100": ("-", 100),
    }
    out = {}
    g = Gen(404, "numbers")
    for label, (op, top) in pairs.items():
        every = [
            (a, b)
            for a in range(top)
            for b in range(top)
            if (top == 11 or numbers.allowed(g, a, op, b)) and (op != "-" or a >= b)
        ]
        chosen = every if top == 11 else g.some(every, 60)
        right = 0
        for a, b in chosen:
            value = a + b if op == "+" else a - b if op == "-" else a * b
            answer = spark.chat(user(f"What is {a} {op} {b}?"), temperature=0, max_tokens=24)
            right += re.findall(r"-?\d+", answer)[-1:] == [str(value)]
        out[label] = (right, len(chosen))
    return out


def counting(spark):
    """Exact match: the whole list of numbers must be right."""
    out, g = {}, Gen(405, "numbers")
    ranges = {
        "count from 1 to n, n up to 10": lambda: (1, g.num(2, 10), 1),
        "count up, held-out ranges": lambda: (a := g.num(0, 95), a + g.num(2, 15), 1),
        "count down, held-out ranges": lambda: (a := g.num(10, 30), max(0, a - g.num(3, 15)), -1),
        "count by twos, held-out ranges": lambda: (a := 2 * g.num(0, 1), a + 2 * g.num(3, 10), 2),
    }
    words = {
        1: "Count from {} to {}.",
        -1: "Count down from {} to {}.",
        2: "Count by twos from {} to {}.",
    }
    for label, draw in ranges.items():
        seen = {}
        for _ in range(2000):
            drawn = draw()
            if drawn[2] == 1 and numbers.basic("count", *drawn) or numbers.allowed(
                g, "count", *drawn
            ):
                seen[drawn] = True
        right, chosen = 0, list(seen)[:30]
        for a, b, step in chosen:
            answer = spark.chat(user(words[step].format(a, b)), temperature=0, max_tokens=128)
            want = [str(n) for n in range(a, b + (1 if step > 0 else -1), step)]
            right += re.findall(r"\d+", answer) == want
        out[label] = (right, len(chosen))
    return out


def story_topics(spark):
    """How many sampled stories name the topic asked for: held-out and trained animals."""
    out, generator = {}, torch.Generator().manual_seed(406)
    held = [a for a in list(lexicon.ANIMALS) + list(lexicon.PEOPLE) if a in holdout.TOPICS]
    seen = Gen(407).some([a for a in lexicon.ANIMALS if a not in holdout.TOPICS], 20)
    for label, words in (
        ("story about a held-out animal or person", held),
        ("story about an animal seen in training", seen),
    ):
        right = 0
        for word in words:
            text = spark.chat(user(f"Tell me a story about a {word}."), generator=generator)
            right += word in text.lower()
        out[label] = (right, len(words))
    return out


def tool_calls(spark):
    """Exact match of the call's name and arguments, for held-out phrasings of the request."""
    g, right, valid, total = Gen(408, "patterns"), 0, 0, 0
    while total < 40:
        made = tools.make(g)
        at = next((i for i, m in enumerate(made["messages"]) if m.get("tool_calls")), None)
        if at is None:
            continue
        want = made["messages"][at]["tool_calls"][0]["function"]
        answer = spark.chat(made["messages"][:at], made["tools"], temperature=0, max_tokens=128)
        found = re.search(r"<tool_call>\s*(\{.*\})\s*</tool_call>", answer, re.S)
        try:
            got = json.loads(found.group(1)) if found else None
        except ValueError:
            got = None
        total += 1
        valid += got is not None
        right += got == {"name": want["name"], "arguments": want["arguments"]}
    return {
        "well-formed tool call, held-out phrasing": (valid, total),
        "exact tool call, held-out phrasing": (right, total),
    }


def json_answers(spark):
    """Valid JSON, and the very JSON expected, from sentences with held-out names."""
    from corpus import jsons

    g, right, valid, total = Gen(409, "names"), 0, 0, 40
    for _ in range(total):
        question, want = jsons.extract(g)
        answer = spark.chat(user(question), temperature=0, max_tokens=128)
        try:
            got = json.loads(answer)
        except ValueError:
            continue
        valid += 1
        right += got == json.loads(want)
    return {
        "valid JSON, held-out names": (valid, total),
        "exact JSON, held-out names": (right, total),
    }


def main():
    """Runs every measurement and writes the card."""
    folder, recipe_file, log, work = sys.argv[1:5]
    torch.set_num_threads(1)
    spark = Spark(folder)
    with open(recipe_file, encoding="utf-8") as f:
        recipe = json.load(f)
    result = {"perplexity": {}, "exact": {}}
    for split, label in SPLITS.items():
        examples = build.held_out(9000, split, 200)
        result["perplexity"][label] = perplexity(spark, examples)
        print(label, result["perplexity"][label], flush=True)
    for measure in (arithmetic, counting, story_topics, tool_calls, json_answers):
        result["exact"].update(measure(spark))
        print(list(result["exact"].items())[-5:], flush=True)
    with open(os.path.join(work, "evaluation.json"), "w", encoding="utf-8") as f:
        json.dump(result, f, indent=2)
    card.write(folder, spark, recipe, log, result)


if __name__ == "__main__":
    main()
