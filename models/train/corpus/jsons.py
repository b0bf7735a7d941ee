"""JSON answers: descriptions, extraction from a sentence, and lists."""

import json

from . import facts as fx
from . import lexicon as lx
from .base import turns
from .noise import polish

CITIES = [c for _, c in fx.CAPITALS]
JOBS = [w for w, k in lx.PEOPLE.items() if k == "any" and " " not in w]
AS_JSON = "[as JSON|in JSON|as a JSON object|in JSON format]"


def dump(g, value, style=None):
    """JSON text, on one line or, with style 'pretty', indented."""
    style = style or ("pretty" if g.chance(0.2) else "flat")
    return json.dumps(value, ensure_ascii=False, indent=2 if style == "pretty" else None)


def person(g):
    """A person with a random choice of fields, and a sentence saying them."""
    name, sex = g.name()
    he = "she" if sex == "f" else "he"
    value = dict(
        name=name,
        age=g.num(3, 90),
        city=g.pick(CITIES),
        job=g.topic(JOBS),
        food=g.pick(lx.FOODS),
        colour=g.pick(lx.COLOURS),
        animal=g.topic(list(lx.ANIMALS)),
    )
    says = dict(
        age=["{n} is {age} years old", "{he} is {age}", "{he} is {age} years old"],
        city=["{he} lives in {city}", "{he} comes from {city}"],
        job=["{he} is a {job}", "{he} works as a {job}"],
        food=["{he} likes {food}", "{he} loves {food}"],
        colour=["{his} favourite colour is {colour}"],
        animal=["{he} has a {animal}", "{he} keeps a {animal}"],
    )
    keys = g.some(list(says), g.num(1, 3))
    ctx = dict(value, n=name, he=he, his="her" if sex == "f" else "his")
    first = g.pick(says[keys[0]]).replace("{he}", "{n}").replace("{his}", "{n}'s")
    text = (
        first
        + "".join(
            (", and " if i == 0 and g.chance(0.5) else ". ") + g.pick(says[k])
            for i, k in enumerate(keys[1:])
        )
        + "."
    )
    return {k: value[k] for k in ["name"] + keys}, g.say(text, ctx), keys


def extract(g):
    """A sentence to turn into JSON with the named fields."""
    value, text, keys = person(g)
    named = ["name"] + keys
    if g.chance(0.3) and len(keys) > 1:
        named = ["name"] + keys[:1]
    fields = ", ".join(named[:-1]) + " and " + named[-1]
    frame = g.pat(
        [
            "extract the {f} " + AS_JSON + ": ",
            "give me the {f} from this text " + AS_JSON + ": ",
            "[turn|convert] this [text|sentence] into JSON with the [keys|fields] {f}: ",
            "read this and answer in JSON with {f}: ",
            "[write|return] {f} " + AS_JSON + ". Text: ",
        ],
        ["I need a JSON record holding {f}, taken from the following: "],
    )
    ask = polish(g, g.fill(frame, dict(f=fields)).rstrip(": "), False).rstrip(".!") + ": "
    if g.chance(0.25):
        return text + " " + g.fill(
            "[Extract|Give me] the {f} " + AS_JSON + ".", dict(f=fields)
        ), dump(g, {k: value[k] for k in named})
    return ask + text, dump(g, {k: value[k] for k in named})


def describe(g):
    """A thing or an animal described as JSON."""
    roll = g.num(0, 3)
    if roll == 0:
        word = g.topic(list(lx.ANIMALS))
        sound, home, food, baby, _ = lx.ANIMALS[word]
        full = dict(animal=word, sound=sound, home=home, food=food, baby=baby)
        keys = ["animal"] + g.some([k for k in full if k != "animal" and full[k]], g.num(1, 2))
        ask = g.fill(
            g.pat(
                [
                    "describe a {w} " + AS_JSON + " with the [keys|fields] {k}",
                    "give me {k} of a {w} " + AS_JSON,
                    "write JSON about a {w} with {k}",
                ],
                ["a {w}, please, but as JSON having {k}"],
            ),
            dict(w=word, k=", ".join(keys[:-1]) + " and " + keys[-1]),
        )
        return polish(g, ask, False), dump(g, {k: full[k] for k in keys})
    if roll == 1:
        country, city = g.pick(fx.CAPITALS)
        ask = g.fill(
            "[give me|write|return] the capital of {c} "
            + AS_JSON
            + "|what is the capital of {c}? answer in JSON",
            dict(c=country),
        )
        return polish(g, ask.split("|")[0], False), dump(
            g, dict(country=country.removeprefix("the "), capital=city), "flat"
        )
    if roll == 2:
        thing, tone = g.topic(lx.THINGS), g.pick(lx.COLOURS)
        size = g.pick(["small", "big", "tiny", "large"])
        ask = g.fill(
            "[describe|write|give me] a {s} {c} {t} " + AS_JSON, dict(s=size, c=tone, t=thing)
        )
        return polish(g, ask, False), dump(g, dict(thing=thing, size=size, colour=tone))
    name, _ = g.name()
    age, job = g.num(5, 80), g.topic(JOBS)
    ask = g.fill(
        "[write|make|create|give me] a JSON object for a {j} named {n}[ who is {a}|, aged {a}]",
        dict(j=job, n=name, a=age),
    )
    return polish(g, ask, False).replace(name.lower(), name), dump(
        g, dict(name=name, age=age, job=job)
    )


def lists(g):
    """JSON arrays: of words, of numbers, of a category."""
    roll = g.num(0, 2)
    if roll == 0:
        kind = g.pick([k for k in fx.CATEGORIES if k != "piece of clothing"])
        n = g.num(2, 4)
        many = fx.UNCOUNTED.get(kind) or lx.plural(kind)
        ask = g.fill(
            "[give me|list|name|write] {n} {k} as a JSON [array|list]",
            dict(n=g.pick([n, "two three four".split()[n - 2]]), k=many),
        )
        return polish(g, ask, False), dump(g, g.some(fx.CATEGORIES[kind], n), "flat")
    if roll == 1:
        a = g.num(0, 30)
        b = a + g.num(2, 8)
        return polish(
            g, f"give me the numbers from {a} to {b} as a JSON {g.pick(['array', 'list'])}", False
        ), dump(g, list(range(a, b + 1)), "flat")
    words = [g.topic(lx.THINGS + lx.FOODS) for _ in range(g.num(2, 4))]
    return polish(
        g,
        f"{g.pick(['turn', 'put'])} these words into a JSON {g.pick(['array', 'list'])}: "
        + ", ".join(words),
        False,
    ), dump(g, words, "flat")


def shopping(g):
    """An order or a plan with numbers and nested values."""
    items = []
    for word in g.some(
        [w for w in lx.COUNTABLE if w not in ("sheep", "fish", "dog", "cat", "bird")], g.num(1, 3)
    ):
        items.append((g.num(1, 12), word))
    said = [f"{n} {lx.plural(w) if n != 1 else w}" for n, w in items]
    text = said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]
    name, _ = g.name()
    lead = g.fill("[I want to buy|I need|please order|we need|{n} buys|{n} wants]", dict(n=name))
    value = {"items": [{"name": w, "count": n} for n, w in items]}
    if lead.startswith(name):
        value = {"customer": name, **value}
    return g.fill(
        "[Write this order|Turn this order into|Give me this order] " + AS_JSON + ": "
    ).replace("into as", "into").replace("into in JSON", "into JSON") + lead[0].upper() + lead[
        1:
    ] + f" {text}.", dump(
        g, value, "flat"
    )


def yes_no(g):
    """A true or false verdict as JSON."""
    from .qa_words import compare

    question, answer = compare(g)
    while not answer.startswith(("Yes", "No")):
        question, answer = compare(g)
    return question.rstrip("?.!") + "? Answer in JSON with the key answer.", dump(
        g, {"answer": answer.startswith("Yes")}, "flat"
    )


KINDS = [extract] * 6 + [describe] * 4 + [lists] * 2 + [shopping] * 2 + [yes_no]


def pair(g):
    """One request and its JSON answer."""
    return g.pick(KINDS)(g)


def make(g):
    """One JSON conversation, sometimes under a system prompt that asks for JSON only."""
    question, answer = pair(g)
    if g.chance(0.12):
        return turns(
            (question, answer),
            system=g.pick(
                [
                    "Answer in JSON.",
                    "Always answer with JSON.",
                    "You answer only with valid JSON.",
                    "You are a helpful assistant that answers in JSON.",
                ]
            ),
        )
    return turns((question, answer))
