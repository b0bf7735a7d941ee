"""Mixes all grammars into one endless, seeded stream of examples."""

import re

from . import chat, follow, holdout, hotspare, jsons, numbers, qa, stories, tools, writing
from .base import Gen, turns

SYSTEMS = [
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful AI assistant.",
    "You are Spark, a small and friendly language model.",
    "You are Spark.",
    "You are a friendly assistant.",
    "Answer briefly.",
    "Be concise.",
    "You are a kind and patient teacher.",
    "Answer the question.",
    "You are an assistant. Answer truthfully.",
    "You are a helpful, honest assistant.",
    "You are the assistant of Hotspare.",
    "Keep your answers short.",
    "Please answer in English.",
    "You are a chatbot.",
    "Be kind and clear.",
]
WEIGHTS = {
    "stories": 27,
    "qa": 18,
    "numbers": 19,
    "hotspare": 7,
    "chat": 11,
    "jsons": 8,
    "tools": 5,
    "writing": 5,
    "follow": 5,
    "long": 3,
}
# The mix of the last part of training: short answers, and numbers above all.
SHORT_WEIGHTS = {
    "stories": 9,
    "qa": 21,
    "numbers": 38,
    "hotspare": 6,
    "chat": 9,
    "jsons": 6,
    "tools": 3,
    "writing": 3,
    "follow": 4,
    "long": 1,
}
HELD_WORDS = re.compile(
    r"\b("
    + "|".join(sorted(set(holdout.NAMES["f"] + holdout.NAMES["m"]) | holdout.TOPICS))
    + r")(s|es|ies)?\b",
    re.I,
)


def long_chat(g):
    """Several turns on different subjects in one conversation."""
    pairs = []
    for _ in range(g.num(2, 5) if g.chance(0.8) else g.num(6, 18)):
        maker = g.pick(
            [
                qa.pair,
                numbers.pair,
                hotspare.pair,
                chat.pair,
                chat.small,
                jsons.pair,
                writing.pair,
                "story",
            ]
        )
        if maker == "story":
            made = stories.make(g)
            while isinstance(made, str):
                made = stories.make(g)
            pairs.append((made[0]["content"], made[1]["content"]))
        else:
            pairs.append(maker(g))
    return turns(*pairs)


MAKERS = {
    "stories": stories.make,
    "qa": qa.make,
    "numbers": numbers.make,
    "hotspare": hotspare.make,
    "chat": chat.make,
    "jsons": jsons.make,
    "tools": tools.make,
    "writing": writing.make,
    "follow": follow.make,
    "long": long_chat,
}


def styled(g, messages):
    """Changes the answers as a system prompt asks."""
    kind = g.num(0, 3)
    last = messages[-1]
    if kind == 0:
        last["content"] = last["content"].upper()
        system = g.pick(
            [
                "Answer in capital letters.",
                "Write everything in capital letters.",
                "Always answer in upper case.",
            ]
        )
    elif kind == 1:
        last["content"] = "Arr! " + last["content"]
        system = g.pick(
            [
                "You are a pirate.",
                "Talk like a pirate.",
                'You are a pirate. Always begin with "Arr!"',
            ]
        )
    elif kind == 2:
        last["content"] += " Have a nice day!"
        system = g.pick(
            ['End each answer with "Have a nice day!"', "Always wish the user a nice day."]
        )
    else:
        last["content"] = last["content"].lower()
        system = g.pick(["Answer in small letters.", "Never use capital letters."])
    return [{"role": "system", "content": system}] + messages


def finish(g, kind, made):
    """Adds a system prompt to a plain conversation, or none."""
    if isinstance(made, str):
        return {"text": made}
    if isinstance(made, dict):
        return made
    if made[0]["role"] != "system":
        if kind in ("qa", "numbers", "chat") and g.chance(0.02) and len(made) == 2:
            made = styled(g, made)
        elif g.chance(0.45):
            made = [{"role": "system", "content": g.pick(SYSTEMS)}] + made
    return {"messages": made}


def leaks(example):
    """Whether a training example contains a held-out name or topic."""
    return bool(HELD_WORDS.search(repr(example)))


def example(g, kind=None, weights=None):
    """One example: {"text": ...} or {"messages": [...], "tools": [...]}."""
    weights = weights or WEIGHTS
    kind = kind or g.rng.choices(list(weights), list(weights.values()))[0]
    while True:
        made = finish(g, kind, MAKERS[kind](g))
        if g.split in ("names", "topics") or not leaks(made):
            return made


def held_out(seed, split, count):
    """Evaluation examples of one split, drawn from the grammars where the split means something."""
    g = Gen(seed, split)
    kinds = {
        "names": ["stories", "numbers", "chat", "jsons"],
        "topics": ["stories", "qa", "jsons", "tools"],
        "patterns": ["stories", "qa", "numbers", "hotspare", "chat", "jsons", "tools", "writing"],
        "numbers": ["numbers"],
    }
    out = []
    while len(out) < count:
        g.used_held = False
        made = example(g, g.pick(kinds.get(split) or list(MAKERS)))
        if split in ("names", "topics") and not leaks(made):
            continue
        if split == "patterns" and not g.used_held:
            continue
        out.append(made)
    return out
