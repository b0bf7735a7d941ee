"""Questions and answers about the plain facts of `facts.py` and `lexicon.py`."""

from . import facts as fx
from . import lexicon as lx
from .base import turns
from .noise import polish
from .qa_base import reply
from .qa_words import calendar, category, compare, words


def animal_fact(g):
    """Sound, home, food, baby or skill of an animal."""
    word = g.topic(list(lx.ANIMALS))
    sound, home, food, baby, skill = lx.ANIMALS[word]
    kinds = ["home", "food", "skill"] + ["sound"] * (sound is not None) + ["baby"] * bool(baby)
    kind = g.pick(kinds)
    c = dict(
        w=word,
        p=lx.plural(word),
        sound=sound,
        home=home,
        food=food,
        baby=baby,
        skill=skill,
        s3=lx.third(skill),
    )
    if kind == "sound":
        return reply(
            g,
            g.pat(
                [
                    "what [sound|noise] does a {w} make",
                    "what does a {w} say",
                    "[how does a {w} sound|which sound does the {w} make]",
                    "tell me the sound of a {w}",
                    "the {w} says what",
                ],
                ["if I met a {w}, what would I hear"],
            ),
            g.pick(['a {w} says "{sound}".', 'the {w} says "{sound}".']),
            **c,
        )
    if kind == "home":
        return reply(
            g,
            g.pat(
                [
                    "where does a {w} live",
                    "where do {p} live",
                    "what is the home of a {w}",
                    "where can I find a {w}",
                    "in which place does a {w} live",
                ],
                ["I am looking for a {w}, where should I go"],
            ),
            "[a {w} lives in {home}|{p} live in {home}|you can find a {w} in {home}].",
            **c,
        )
    if kind == "food":
        return reply(
            g,
            g.pat(
                [
                    "what does a {w} eat",
                    "what do {p} eat",
                    "what do {p} like to eat",
                    "what food does a {w} like",
                    "what should I feed a {w}",
                ],
                ["my {w} is hungry, what can I give it"],
            ),
            "[a {w} eats {food}|{p} eat {food}|{p} like to eat {food}].",
            **c,
        )
    if kind == "baby":
        return reply(
            g,
            g.pat(
                [
                    "what is a baby {w} called",
                    "what do you call a baby {w}",
                    "what is the young of a {w}",
                    "what is the name for a young {w}",
                ],
                ["the child of a {w} has a special name, which one"],
            ),
            "[a baby {w} is called a {baby}|it is called a {baby}|a young {w} is a {baby}].",
            **c,
        )
    return reply(
        g,
        g.pat(
            [
                "what can a {w} do",
                "what are {p} good at",
                "what is a {w} good at",
                "tell me something about {p}",
                "tell me [a fact|something] about the {w}",
            ],
            ["name one talent of the {w}"],
        ),
        "[a {w} can {skill}|{p} can {skill}|{p} can {skill} and like to eat {food}|"
        "a {w} lives in {home} and eats {food}].",
        **c,
    )


def describe_animal(g):
    """A few sentences about an animal."""
    word = g.topic(list(lx.ANIMALS))
    sound, home, food, baby, skill = lx.ANIMALS[word]
    c = dict(w=word, p=lx.plural(word), home=home, food=food, skill=skill, sound=sound, baby=baby)
    group = next((k for k, v in fx.KINDS.items() if word in v), "animal")
    c["g"] = group if word != group else "animal"
    parts = [
        g.pick(
            [
                "a {w} lives in {home}.",
                "a {w} is a {g} that lives in {home}.",
                "a {w} is a {g}. it lives in {home}.",
            ]
        ),
        "it eats {food}.",
        "it can {skill}.",
    ]
    if sound:
        parts.append('it says "{sound}".')
    if baby:
        parts.append("a baby {w} is called a {baby}.")
    keep = parts[:1] + g.some(parts[1:], g.num(2, len(parts) - 1))
    return (
        polish(
            g,
            g.fill(
                g.pat(
                    [
                        "describe a {w}",
                        "what is a {w}",
                        "tell me about [{p}|the {w}]",
                        "what do you know about {p}",
                        "can you describe a {w}",
                        "write [a few sentences|something|a paragraph] about {p}",
                        "what do I need to know about {p}",
                    ],
                    ["give me a portrait of the {w}"],
                ),
                c,
            ),
        ),
        " ".join(g.say(p, c) for p in keep),
    )


def capital(g):
    """Capitals, both ways round."""
    country, city = g.pick(fx.CAPITALS)
    c = dict(c=country, t=city)
    if g.chance(0.75):
        return reply(
            g,
            g.pat(
                [
                    "what is the capital of {c}",
                    "which city is the capital of {c}",
                    "what's the capital of {c}",
                    "name the capital of {c}",
                    "tell me the capital of {c}",
                    "do you know the capital of {c}",
                    "capital of {c}",
                    "what is the capital city of {c}",
                ],
                ["the government of {c} sits in which capital"],
            ),
            "[the capital of {c} is {t}|{t} is the capital of {c}|it is {t}].",
            **c,
        )
    return reply(
        g,
        "[which country has the capital {t}|{t} is the capital of which country|where is "
        "{t}|in which country is {t}]",
        "[{t} is the capital of {c}|{t} is in {c}].",
        **c,
    )


def opposite(g):
    """Opposites and synonyms."""
    if g.chance(0.7):
        x, y = g.pick(fx.OPPOSITES)
        return reply(
            g,
            g.pat(
                [
                    "what is the opposite of {x}",
                    'what\'s the opposite of "{x}"',
                    "opposite of {x}",
                    "[tell|give] me the opposite of {x}",
                    "which word means the opposite of {x}",
                ],
                ["if it is not {x}, then it is what"],
            ),
            '[the opposite of {x} is {y}|the opposite of "{x}" is "{y}"].',
            x=x,
            y=y,
        )
    x, y = g.pick(fx.SYNONYMS)
    return reply(
        g,
        g.pat(
            [
                "what is another word for {x}",
                "give me a synonym for {x}",
                "which word means the same as {x}",
                'what is a synonym of "{x}"',
            ],
            ["I need a different word for {x}"],
        ),
        '[another word for {x} is {y}|"{y}" means the same as "{x}"].',
        x=x,
        y=y,
    )


def colour(g):
    """Colours of things."""
    x, y = g.topic(fx.COLOURS, key=lambda p: p[0].split(" ")[-1])
    if g.chance(0.25):
        other = y if g.chance(0.5) else g.pick(lx.COLOURS[:10])
        if other == y:
            return reply(g, "is {x} {o}", "yes, {x} is {o}.", x=x, o=other)
        return reply(g, "is {x} {o}", "no, {x} is {y}.", x=x, o=other, y=y)
    return reply(
        g,
        g.pat(
            [
                "what colour is {x}",
                "what color is {x}",
                "which colour does {x} have",
                "tell me the colour of {x}",
                "what is the colour of {x}",
            ],
            ["when I look at {x}, which colour do I see"],
        ),
        "[{x} is {y}|{x} is usually {y}].",
        x=x,
        y=y,
    )


def job(g):
    """What people and things are for."""
    roll = g.num(0, 2)
    if roll == 0:
        x, y = g.topic(fx.HABIT, key=lambda p: p[0].split(" ", 1)[1])
        return reply(
            g,
            g.pat(
                [
                    "what does {x} do",
                    "what is {x}",
                    "what is the job of {x}",
                    "tell me what {x} does",
                ],
                ["how does {x} spend the working day"],
            ),
            "{x} {y}." if g.chance(0.6) else "{x} is someone who {y}.",
            x=x,
            y=y,
        )
    if roll == 1:
        x, y = g.topic(fx.USES, key=lambda p: p[0].split(" ")[-1])
        verb = "are" if x in ("scissors", "glasses") else "is"
        do = "are" if verb == "are" else "is"
        return reply(
            g,
            g.pat(
                [
                    "what " + do + " {x} for",
                    "what do you use {x} for",
                    "what can I do with {x}",
                    "why do people use {x}",
                ],
                ["I was given {x}, what could it be good for"],
            ),
            "[you use {x} to {y}|people use {x} to {y}|with {x}, you can {y}].",
            x=x,
            y=y,
        )
    x, y = g.pick(fx.BODY)
    plural = x.endswith("s") and x != "lungs" or x in ("teeth", "feet", "lungs")
    ask = "what are the {x} for" if plural else "what is the {x} for"
    return reply(
        g,
        g.pat(
            [ask, "what do we use our {x} for", "what do people do with their {x}"],
            ["without the {x}, what could I not do"],
        ),
        "[we use our {x} to {y}|people use their {x} to {y}].",
        x=x,
        y=y,
    )


def definition(g):
    """Short definitions."""
    x, y = g.topic(fx.DEFINITIONS, key=lambda p: p[0].split(" ")[-1])
    return reply(
        g,
        g.pat(
            [
                "what is {x}",
                "what is {x}",
                'what does "{bare}" mean',
                "define {bare}",
                "can you explain what {x} is",
                "explain what {x} is",
                "tell me what {x} is",
                "what's {x}",
                "do you know what {x} is",
                "explain {x} [simply|to a child]",
            ],
            ["a child asks me what {x} is, what do I say"],
        ),
        "{x} is {y}.",
        x=x,
        y=y,
        bare=x.split(" ", 1)[-1] if x[:2] in ("a ", "an") else x,
    )


def misc(g):
    """Single facts."""
    q, ans = g.pick(fx.MISC)
    return polish(g, q), ans


KINDS = (
    [animal_fact] * 4
    + [describe_animal] * 3
    + [capital] * 3
    + [opposite] * 3
    + [colour] * 2
    + [job] * 3
    + [definition] * 4
    + [calendar] * 4
    + [category] * 3
    + [compare] * 2
    + [words] * 3
    + [misc] * 3
)


def pair(g):
    """One question and its answer."""
    return g.pick(KINDS)(g)


def make(g):
    """One question-and-answer conversation of a single turn; now and then as plain text."""
    question, answer = pair(g)
    if g.chance(0.05):
        return f"Question: {question}\nAnswer: {answer}"
    return turns((question, answer))
