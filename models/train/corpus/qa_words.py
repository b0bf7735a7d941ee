"""Questions about the calendar, kinds of things, sizes, and words themselves."""

from . import facts as fx
from . import lexicon as lx
from .base import capitalise
from .noise import polish
from .qa_base import a, reply

COUNT_WORDS = "zero one two three four five six seven eight nine ten".split()


def calendar(g):
    """Days, months, seasons and the alphabet."""
    roll = g.num(0, 6)
    if roll in (0, 1):
        names, kind = (fx.DAYS, "day") if roll == 0 else (fx.MONTHS, "month")
        i = g.num(0, len(names) - 1)
        after = g.chance(0.6)
        x, y = names[i], names[(i + (1 if after else -1)) % len(names)]
        word = "after" if after else "before"
        return reply(
            g,
            g.pat(
                [
                    "what {k} comes {w} {x}",
                    "which {k} is {w} {x}",
                    "what comes {w} {x}",
                    "what is the {k} {w} {x}",
                ],
                ["name the {k} that stands {w} {x}"],
            ),
            "[{y} comes {w} {x}|the {k} {w} {x} is {y}|{w} {x}{v} {y}].",
            x=x,
            y=y,
            k=kind,
            w=word,
            v=" comes" if after else " is",
        )
    if roll == 2:
        i = g.num(0, 11)
        return reply(
            g,
            "how many days [does {m} have|are in {m}|are there in {m}]",
            "[{m} has {d} days|there are {d} days in {m}].",
            m=fx.MONTHS[i],
            d=fx.MONTH_DAYS[i],
        )
    if roll == 3:
        kind, names = g.pick(
            [
                ("days of the week", fx.DAYS),
                ("months of the year", fx.MONTHS),
                ("four seasons", fx.SEASONS),
            ]
        )
        return (
            polish(g, g.fill("[name|list|tell me|what are] the " + kind)),
            capitalise(f"the {kind} are {', '.join(names[:-1])} and {names[-1]}."),
        )
    if roll == 4:
        s = g.pick(fx.SEASONS)
        note = g.some(fx.SEASON_NOTES[s], 2)
        return reply(
            g,
            "[what happens in {s}|describe {s}|tell me about {s}|what is {s} like|"
            "why do people like {s}]",
            "in {s}, {n} and {o}.",
            s=s,
            n=note[0],
            o=note[1],
        )
    if roll == 5:
        i = g.num(0, 24)
        x, y = chr(65 + i), chr(66 + i)
        return reply(
            g,
            "[what|which] letter comes after {x}",
            "[the letter after {x} is {y}|{y} comes after {x}|after {x} comes {y}].",
            x=x,
            y=y,
        )
    names = g.pick([fx.DAYS, fx.MONTHS])
    i = g.num(0, len(names) - 1)
    which = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
    unit = "day of the week" if names is fx.DAYS else "month of the year"
    return reply(
        g,
        "[what|which] is the {n} {u}",
        "the {n} {u} is {x}.",
        n=which.split()[i],
        u=unit,
        x=names[i],
    )


def category(g):
    """Lists of things of a kind, and what kind a thing is."""
    kind = g.pick(list(fx.CATEGORIES))
    items = fx.CATEGORIES[kind]
    many = fx.UNCOUNTED.get(kind) or lx.plural(kind)
    if g.chance(0.6):
        n = g.num(2, 5)
        word = COUNT_WORDS[n] if g.chance(0.7) else str(n)
        chosen = [
            i if kind in ("language", "sport", "colour", "drink", "planet", "country") else a(i)
            for i in g.some(items, n)
        ]
        question = polish(
            g,
            g.fill(
                g.pat(
                    [
                        "name {n} {k}",
                        "list {n} {k}",
                        "give me {n} {k}",
                        "tell me {n} {k}",
                        "can you name {n} {k}",
                        "give me a list of {n} {k}",
                        "write down {n} {k}",
                    ],
                    ["think of {n} {k} and name them"],
                ),
                dict(n=word, k=many),
            ),
        )
        style = g.num(0, 3)
        if style == 0:
            return question, capitalise(
                "\n".join(f"{i + 1}. {c}" for i, c in enumerate(chosen)).title()
                if kind in ("country", "planet", "language")
                else "\n".join(f"{i + 1}. {c}" for i, c in enumerate(chosen))
            )
        body = ", ".join(chosen[:-1]) + " and " + chosen[-1]
        lead = f"{word} {many} are " if style < 3 else ""
        return question, capitalise(lead + body + ".")
    item = g.pick(items)
    if kind in ("language", "sport", "colour", "drink", "planet", "country"):
        thing = item
    else:
        thing = a(item)
    if g.chance(0.5):
        return reply(g, "what kind of thing is {x}", "{x} is a {k}.", x=thing, k=kind)
    other = g.pick([k for k in fx.CATEGORIES if k not in (kind, "animal")])
    truth = g.chance(0.5)
    if kind in ("bird", "insect") and other == "animal":
        truth = True
    return reply(
        g,
        "is {x} a {k}",
        "yes, {x} is a {k}." if truth else "no, {x} is not a {k}. it is a {r}.",
        x=thing,
        k=kind if truth else other,
        r=kind,
    )


def compare(g):
    """Which of two is bigger, smaller, faster or slower."""
    table, up, down = g.pick([(fx.SIZES, "bigger", "smaller"), (fx.SPEEDS, "faster", "slower")])
    i, j = sorted(g.some(range(len(table)), 2))
    low, high = table[i], table[j]
    word, winner, loser = (up, high, low) if g.chance(0.6) else (down, low, high)
    x, y = (winner, loser) if g.chance(0.5) else (loser, winner)
    if g.chance(0.6):
        return reply(
            g,
            g.pat(
                [
                    "[which|what] is {w}, a {x} or a {y}",
                    "who is {w}, a {x} or a {y}",
                    "is a {x} or a {y} {w}",
                ],
                ["a {x} and a {y} stand side by side, which is {w}"],
            ),
            "[a {a} is {w} than a {b}|the {a} is {w}].",
            w=word,
            x=x,
            y=y,
            a=winner,
            b=loser,
        )
    return reply(
        g,
        "is a {x} {w} than a {y}",
        "yes, a {x} is {w} than a {y}." if x == winner else "no, a {x} is not {w} than a {y}.",
        w=word,
        x=x,
        y=y,
    )


def words(g):
    """Past tenses, plurals, spelling and example sentences."""
    roll = g.num(0, 6)
    if roll == 5:
        x, y = g.pick(fx.RHYMES)
        return reply(
            g,
            "[what rhymes with|which word rhymes with|give me a rhyme for|find a rhyme for] "
            '[{x}|"{x}"]',
            '["{y}" rhymes with "{x}"|{x} rhymes with {y}].',
            x=x,
            y=y,
        )
    if roll == 6:
        x, y = g.pick(fx.HELLO)
        return reply(
            g,
            "[how do you say hello in|what is hello in|say hello in|translate hello [to|into]] {x}",
            '"hello" in {x} is "{y}".',
            x=x,
            y=y,
        )
    if roll == 0:
        x, y = g.pick(fx.PAST)
        return reply(
            g,
            '[what is the past tense of|give me the past tense of|what is the past of] [{x}|"{x}"]',
            'the past tense of "{x}" is "{y}".',
            x=x,
            y=y,
        )
    pool = lx.COUNTABLE + list(lx.ANIMALS) + ["child", "man", "woman", "foot", "tooth", "baby"]
    x = g.topic(pool)
    if roll == 1:
        return reply(
            g,
            '[what is the plural of|give me the plural of|plural of] [{x}|"{x}"]',
            'the plural of "{x}" is "{y}".',
            x=x,
            y=lx.plural(x),
        )
    if roll == 2:
        return reply(
            g,
            '[how do you spell|spell|spell the word|how is] [{x}|"{x}"]'.replace("|how is", ""),
            "{x} is spelled {y}.",
            x=x,
            y="-".join(x.upper()),
        )
    if roll == 3:
        return reply(
            g,
            'what is the first letter of [{x}|"{x}"]',
            'the first letter of "{x}" is {y}.',
            x=x,
            y=x[0].upper(),
        )
    adj = g.fill("[big|small|old|nice|lovely|round|little|beautiful]")
    sentence = g.pick(
        [
            "the {x} is very {adj}.",
            "I saw a {adj} {x} yesterday.",
            "my friend has a {adj} {x}.",
            "there is a {x} near the door.",
            "we looked at the {x} for a long time.",
        ]
    )
    return reply(
        g,
        g.pat(
            [
                '[write|make|give me] a sentence with [the word|] "{x}"',
                'use [the word|] "{x}" in a sentence',
            ],
            ['show me how "{x}" is used'],
        ),
        sentence,
        x=x,
        adj=adj,
    )
