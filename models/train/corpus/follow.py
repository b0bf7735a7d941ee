"""Conversations in which the second question leans on the first ("And in Italy?")."""

from . import facts as fx
from . import lexicon as lx
from . import chat, numbers, qa, stories
from .base import turns
from .noise import polish


def capitals(g):
    """One capital after another."""
    chosen = g.some(fx.CAPITALS, g.num(2, 4))
    first = (
        polish(g, f"what is the capital of {chosen[0][0]}"),
        f"The capital of {chosen[0][0]} is {chosen[0][1]}.",
    )
    rest = [
        (
            (
                g.fill("[And|And what is the capital] of {c}?|x".split("|x")[0], dict(c=c))
                if g.chance(0.6)
                else g.fill("[What about|And] {c}?", dict(c=c))
            ),
            f"The capital of {c} is {t}.",
        )
        for c, t in chosen[1:]
    ]
    return [first] + rest


def animals(g):
    """The same question about several animals."""
    words = g.some(
        [a for a, v in lx.ANIMALS.items() if v[0] and a not in ("whale", "dolphin")], g.num(2, 3)
    )
    kind = g.num(0, 2)
    index, ask, say = [
        (0, "what does a {w} say", 'a {w} says "{v}".'),
        (1, "where does a {w} live", "a {w} lives in {v}."),
        (2, "what does a {w} eat", "a {w} eats {v}."),
    ][kind]
    out = []
    for i, w in enumerate(words):
        c = dict(w=w, v=lx.ANIMALS[w][index])
        out.append(
            (
                polish(g, g.fill(ask, c)) if i == 0 else g.fill("[And|What about] a {w}?", c),
                g.say(say, c),
            )
        )
    return out


def sums(g):
    """A running total."""
    total = g.num(1, 20)
    b = g.num(1, 10)
    while not numbers.allowed(g, total, "+", b):
        b = g.num(1, 10)
    out = [(polish(g, f"what is {total} + {b}"), f"{total} + {b} is {total + b}.")]
    total += b
    for _ in range(g.num(1, 3)):
        op, n = g.pick("+-"), g.num(1, 10)
        if (op == "-" and n > total) or not numbers.allowed(g, total, op, n):
            continue
        result = total + n if op == "+" else total - n
        ask = g.fill(
            (
                "[And|Now] {w} {n}[?|.]"
                if g.chance(0.6)
                else "{w2} {n}[| to that].".replace(
                    "[| to that]", "" if op == "-" else "[| to that]"
                )
            ),
            dict(w="plus" if op == "+" else "minus", w2="Add" if op == "+" else "Take away", n=n),
        )
        out.append((ask, f"{total} {op} {n} is {result}."))
        total = result
    return out


def opposites(g):
    """Opposites in a row."""
    chosen = g.some(fx.OPPOSITES, g.num(2, 3))
    return [
        (
            (
                polish(g, f"what is the opposite of {x}")
                if i == 0
                else g.fill("[And|And of|What about] {x}?", dict(x=x))
            ),
            f"The opposite of {x} is {y}.",
        )
        for i, (x, y) in enumerate(chosen)
    ]


def again(g):
    """Another story or another joke."""
    if g.chance(0.4):
        answers = g.some(chat.SMALL[9][2], 2)
        return [
            (polish(g, "tell me a joke"), g.say(answers[0])),
            (
                polish(g, g.fill("[another one|another joke|one more|tell me another]")),
                g.say(answers[1]),
            ),
        ]
    hero = stories.set_scene(g, stories.cast_animal(g))
    other = stories.set_scene(g, stories.cast_animal(g))
    ask = g.fill(
        "[tell me another story|another one|now one about a {k}|and a story about a {k}|now a story"
        " about a {k}]",
        dict(k=other["kind"]),
    )
    return [
        (
            polish(g, g.fill("tell me a story about a {k}", dict(k=hero["kind"]))),
            stories.tell(g, hero),
        ),
        (polish(g, ask), stories.tell(g, other)),
    ]


def recall(g):
    """The user says something about themselves and asks for it later."""
    a, c, f = g.topic(list(lx.ANIMALS)), g.pick(lx.COLOURS), g.pick(lx.FOODS)
    says, ask, ans = g.pick(
        [
            (f"I have a {a}", "what animal do I have", f"you have a {a}."),
            (
                f"my favourite colour is {c}",
                "what is my favourite colour",
                f"your favourite colour is {c}.",
            ),
            (f"I like {f}", "what do I like", f"you like {f}."),
            (f"I am {(n := g.num(4, 80))} years old", "how old am I", f"you are {n} years old."),
        ]
    )
    middle = [qa.pair(g)] if g.chance(0.5) else []
    return (
        [
            (
                polish(g, g.fill(says), False),
                g.pick(["That is nice!", "How nice! What can I do for you?", "Good to know."]),
            )
        ]
        + middle
        + [(polish(g, ask), g.say(ans))]
    )


KINDS = [capitals, animals, sums, sums, opposites, again, again, recall, recall]


def make(g):
    """One conversation of dependent turns."""
    return turns(*g.pick(KINDS)(g))
