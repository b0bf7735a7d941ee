"""Greetings, small talk, questions about the model itself, refusals, and tasks on given text."""

from . import lexicon as lx
from .base import capitalise, turns
from .noise import polish
from .smalltalk import (
    SMALL,
    UNKNOWN,
    UNKNOWN_ASK,
    UNKNOWN_REPLY,
    UNKNOWN_FACT,
    UNKNOWN_FACT_REPLY,
)

def small(g):
    """A piece of small talk."""
    asks, held, answers = SMALL[0] if g.chance(0.12) else g.pick(SMALL)
    return polish(g, g.fill(g.pat(asks, held))), g.say(g.pick(answers))


def unknown(g):
    """Something a small model does not know, said kindly."""
    if g.chance(0.65):
        c = dict(t=g.pick(UNKNOWN))
        return polish(g, g.fill(g.pick(UNKNOWN_ASK), c)), g.say(g.pick(UNKNOWN_REPLY), c)
    c = dict(
        n=g.name()[0] + " " + g.pick("Smith Brown Miller Baker Young King Green Hill".split()),
        y=g.num(1800, 2030),
    )
    return polish(g, g.fill(g.pick(UNKNOWN_FACT), c)), g.say(g.pick(UNKNOWN_FACT_REPLY))


def introduce(g):
    """The user gives a name; later the assistant may be asked for it."""
    name, _ = g.name()
    first = (
        polish(
            g,
            g.fill(
                g.pat(
                    [
                        "my name is {n}",
                        "I am {n}",
                        "hello, I am {n}",
                        "hi, my name is {n}",
                        "call me {n}",
                        "I'm {n}",
                    ],
                    ["people know me as {n}"],
                ),
                dict(n=name),
            ),
            False,
        ).replace(name.lower(), name),
        g.say(
            g.pick(
                [
                    "[hello|hi], {n}! how can I help you[ today|]?",
                    "nice to meet you, {n}! what can I do for you?",
                ]
            ),
            dict(n=name),
        ),
    )
    return first, (
        polish(
            g, g.pick(["what is my name", "do you remember my name", "who am I", "what's my name"])
        ),
        g.say("[your name is {n}|you are {n}].", dict(n=name)),
    )


def sentence(g):
    """A simple sentence and the facts in it."""
    name, sex = g.name()
    c = dict(
        n=name,
        he="she" if sex == "f" else "he",
        his="her" if sex == "f" else "his",
        a=g.topic(list(lx.ANIMALS)),
        c=g.pick(lx.COLOURS),
        t=g.topic(lx.THINGS),
        p=g.topic(list(lx.PLACES)),
        f=g.pick(lx.FOODS),
        k=g.num(2, 12),
    )
    c["at"] = lx.PLACES[c["p"]]
    forms = [
        (
            "{n} has a {c} {t}.",
            [
                ("what does {n} have", "{n} has a {c} {t}."),
                ("what colour is the {t}", "the {t} is {c}."),
                ("who has a {t}", "{n} has a {t}."),
            ],
        ),
        (
            "{n} the {a} likes {f}.",
            [
                ("who likes {f}", "{n} likes {f}."),
                ("what does {n} like", "{n} likes {f}."),
                ("what kind of animal is {n}", "{n} is a {a}."),
            ],
        ),
        (
            "{n} is {k} years old and lives {at} a {p}.",
            [
                ("how old is {n}", "{n} is {k} years old."),
                ("where does {n} live", "{n} lives {at} a {p}."),
            ],
        ),
        (
            "{n} saw a {a} {at} the {p}.",
            [
                ("what did {n} see", "{n} saw a {a}."),
                ("where was the {a}", "the {a} was {at} the {p}."),
                ("who saw the {a}", "{n} saw the {a}."),
            ],
        ),
        (
            "{n} lost {his} {c} {t} {at} the {p}.",
            [
                ("what did {n} lose", "{n} lost a {c} {t}."),
                ("where did {n} lose the {t}", "{n} lost it {at} the {p}."),
                ("what colour was the {t}", "the {t} was {c}."),
            ],
        ),
        (
            "yesterday, {n} ate {f} {at} the {p}.",
            [
                ("what did {n} eat", "{n} ate {f}."),
                ("who ate {f}", "{n} ate {f}."),
                ("when did {n} eat {f}", "{n} ate {f} yesterday."),
            ],
        ),
    ]
    text, asks = g.pick(forms)
    return text, asks, c


def reading(g):
    """A question about a short text that the user gives."""
    parts = [sentence(g) for _ in range(g.pick([1, 1, 2, 3]))]
    text = " ".join(g.say(p[0], p[2]) for p in parts)
    _, asks, c = parts[0] if len(parts) == 1 else g.pick(parts)
    q, ans = g.pick(asks)
    question = g.say(q + "?", c)
    frame = g.pat(
        [
            f"{text} {question}",
            f"{text}\n\n{question}",
            f"Read this: {text}\n{question}",
            f"Text: {text}\nQuestion: {question}",
        ],
        [f"{question} Here is what I know: {text}"],
    )
    return frame, g.say(ans, c)


def editing(g):
    """Repeat, shout, whisper, list, count or reverse given words."""
    text, _, c = sentence(g)
    text = g.say(text, c)
    pool = [w for w in lx.THINGS + lx.MORE_THINGS + list(lx.ANIMALS) + lx.FOODS if " " not in w]
    words = g.some(pool, g.num(2, 5))
    roll = g.num(0, 5)
    if roll == 0:
        return (
            g.fill("[repeat|repeat after me|say|please repeat|copy this]: ").capitalize() + text,
            text,
        )
    if roll == 1:
        return "Write this in capital letters: " + text, text.upper()
    if roll == 2:
        return "Write this in small letters: " + text, text.lower()
    if roll == 3:
        return polish(g, "make a list of these words: " + ", ".join(words), False), "\n".join(
            "- " + w for w in words
        )
    if roll == 4:
        return polish(
            g,
            g.pick(["how many words are in this list: ", "count these words: "]) + ", ".join(words),
            False,
        ), capitalise(f"there are {len(words)} words in the list.")
    return (
        polish(g, "put these words in alphabetical order: " + ", ".join(words), False),
        ", ".join(sorted(words)) + ".",
    )


KINDS = [small] * 6 + [unknown] * 2 + [reading] * 5 + [editing] * 3


def pair(g):
    """One question and its answer."""
    return g.pick(KINDS)(g)


def make(g):
    """One conversation of small talk or about a given text."""
    if g.chance(0.06):
        first, second = introduce(g)
        middle = [small(g)] if g.chance(0.3) else []
        return turns(first, *middle, second)
    return turns(pair(g))
