"""Questions and answers about the plain facts of `facts.py` and `lexicon.py`."""

from . import facts as fx
from . import lexicon as lx
from .base import capitalise, mend, turns
from .noise import polish

COUNT_WORDS = "zero one two three four five six seven eight nine ten".split()


def a(word):
    """The word with its indefinite article."""
    return mend("a " + word)


def reply(g, question, answer, **ctx):
    """A finished (question, answer) pair from two templates."""
    return polish(g, g.fill(question, ctx)), g.say(answer, ctx)


def animal_fact(g):
    """Sound, home, food, baby or skill of an animal."""
    word = g.topic(list(lx.ANIMALS))
    sound, home, food, baby, skill = lx.ANIMALS[word]
    kinds = ["home", "food", "skill"] + ["sound"] * (sound is not None) + ["baby"] * bool(baby)
    kind = g.pick(kinds)
    c = dict(w=word, p=lx.plural(word), sound=sound, home=home, food=food, baby=baby, skill=skill,
             s3=lx.third(skill))
    if kind == "sound":
        return reply(g, g.pat(["what [sound|noise] does a {w} make", "what does a {w} say",
                               "[how does a {w} sound|which sound does the {w} make]",
                               "tell me the sound of a {w}", "the {w} says what"],
                              ["if I met a {w}, what would I hear"]),
                     g.pick(["a {w} says \"{sound}\".", "the {w} says \"{sound}\"."]), **c)
    if kind == "home":
        return reply(g, g.pat(["where does a {w} live", "where do {p} live", "what is the home of a {w}",
                               "where can I find a {w}", "in which place does a {w} live"],
                              ["I am looking for a {w}, where should I go"]),
                     "[a {w} lives in {home}|{p} live in {home}|you can find a {w} in {home}].", **c)
    if kind == "food":
        return reply(g, g.pat(["what does a {w} eat", "what do {p} eat", "what do {p} like to eat",
                               "what food does a {w} like", "what should I feed a {w}"],
                              ["my {w} is hungry, what can I give it"]),
                     "[a {w} eats {food}|{p} eat {food}|{p} like to eat {food}].", **c)
    if kind == "baby":
        return reply(g, g.pat(["what is a baby {w} called", "what do you call a baby {w}",
                               "what is the young of a {w}", "what is the name for a young {w}"],
                              ["the child of a {w} has a special name, which one"]),
                     "[a baby {w} is called a {baby}|it is called a {baby}|a young {w} is a {baby}].",
                     **c)
    return reply(g, g.pat(["what can a {w} do", "what are {p} good at", "what is a {w} good at",
                           "tell me something about {p}", "tell me [a fact|something] about the {w}"],
                          ["name one talent of the {w}"]),
                 "[a {w} can {skill}|{p} can {skill}|{p} can {skill} and like to eat {food}|"
                 "a {w} lives in {home} and eats {food}].", **c)


def describe_animal(g):
    """A few sentences about an animal."""
    word = g.topic(list(lx.ANIMALS))
    sound, home, food, baby, skill = lx.ANIMALS[word]
    c = dict(w=word, p=lx.plural(word), home=home, food=food, skill=skill, sound=sound, baby=baby)
    group = next((k for k, v in fx.KINDS.items() if word in v), "animal")
    c["g"] = group if word != group else "animal"
    parts = [g.pick(["a {w} lives in {home}.", "a {w} is a {g} that lives in {home}.",
                     "a {w} is a {g}. it lives in {home}."]), "it eats {food}.", "it can {skill}."]
    if sound:
        parts.append("it says \"{sound}\".")
    if baby:
        parts.append("a baby {w} is called a {baby}.")
    keep = parts[:1] + g.some(parts[1:], g.num(2, len(parts) - 1))
    return (polish(g, g.fill(g.pat(["describe a {w}", "what is a {w}", "tell me about [{p}|the {w}]",
                                    "what do you know about {p}", "can you describe a {w}",
                                    "write [a few sentences|something|a paragraph] about {p}",
                                    "what do I need to know about {p}"],
                                   ["give me a portrait of the {w}"]), c)),
            " ".join(g.say(p, c) for p in keep))


def capital(g):
    """Capitals, both ways round."""
    country, city = g.pick(fx.CAPITALS)
    c = dict(c=country, t=city)
    if g.chance(0.75):
        return reply(g, g.pat(["what is the capital of {c}", "which city is the capital of {c}",
                               "what's the capital of {c}", "name the capital of {c}",
                               "tell me the capital of {c}", "do you know the capital of {c}",
                               "capital of {c}", "what is the capital city of {c}"],
                              ["the government of {c} sits in which capital"]),
                     "[the capital of {c} is {t}|{t} is the capital of {c}|it is {t}].", **c)
    return reply(g, "[which country has the capital {t}|{t} is the capital of which country|where is "
                 "{t}|in which country is {t}]", "[{t} is the capital of {c}|{t} is in {c}].", **c)


def opposite(g):
    """Opposites and synonyms."""
    if g.chance(0.7):
        x, y = g.pick(fx.OPPOSITES)
        return reply(g, g.pat(["what is the opposite of {x}", "what's the opposite of \"{x}\"",
                               "opposite of {x}", "[tell|give] me the opposite of {x}",
                               "which word means the opposite of {x}"],
                              ["if it is not {x}, then it is what"]),
                     "[the opposite of {x} is {y}|the opposite of \"{x}\" is \"{y}\"].", x=x, y=y)
    x, y = g.pick(fx.SYNONYMS)
    return reply(g, g.pat(["what is another word for {x}", "give me a synonym for {x}",
                           "which word means the same as {x}", "what is a synonym of \"{x}\""],
                          ["I need a different word for {x}"]),
                 "[another word for {x} is {y}|\"{y}\" means the same as \"{x}\"].", x=x, y=y)


def colour(g):
    """Colours of things."""
    x, y = g.topic(fx.COLOURS, key=lambda p: p[0].split(" ")[-1])
    if g.chance(0.25):
        other = y if g.chance(0.5) else g.pick(lx.COLOURS[:10])
        if other == y:
            return reply(g, "is {x} {o}", "yes, {x} is {o}.", x=x, o=other)
        return reply(g, "is {x} {o}", "no, {x} is {y}.", x=x, o=other, y=y)
    return reply(g, g.pat(["what colour is {x}", "what color is {x}", "which colour does {x} have",
                           "tell me the colour of {x}", "what is the colour of {x}"],
                          ["when I look at {x}, which colour do I see"]),
                 "[{x} is {y}|{x} is usually {y}].", x=x, y=y)


def job(g):
    """What people and things are for."""
    roll = g.num(0, 2)
    if roll == 0:
        x, y = g.topic(fx.HABIT, key=lambda p: p[0].split(" ", 1)[1])
        return reply(g, g.pat(["what does {x} do", "what is {x}", "what is the job of {x}",
                               "tell me what {x} does"], ["how does {x} spend the working day"]),
                     "{x} {y}." if g.chance(0.6) else "{x} is someone who {y}.", x=x, y=y)
    if roll == 1:
        x, y = g.topic(fx.USES, key=lambda p: p[0].split(" ")[-1])
        verb = "are" if x in ("scissors", "glasses") else "is"
        do = "are" if verb == "are" else "is"
        return reply(g, g.pat(["what " + do + " {x} for", "what do you use {x} for",
                               "what can I do with {x}", "why do people use {x}"],
                              ["I was given {x}, what could it be good for"]),
                     "[you use {x} to {y}|people use {x} to {y}|with {x}, you can {y}].", x=x, y=y)
    x, y = g.pick(fx.BODY)
    plural = x.endswith("s") and x != "lungs" or x in ("teeth", "feet", "lungs")
    ask = "what are the {x} for" if plural else "what is the {x} for"
    return reply(g, g.pat([ask, "what do we use our {x} for", "what do people do with their {x}"],
                          ["without the {x}, what could I not do"]),
                 "[we use our {x} to {y}|people use their {x} to {y}].", x=x, y=y)


def definition(g):
    """Short definitions."""
    x, y = g.topic(fx.DEFINITIONS, key=lambda p: p[0].split(" ")[-1])
    return reply(g, g.pat(["what is {x}", "what is {x}", "what does \"{bare}\" mean", "define {bare}",
                           "can you explain what {x} is", "explain what {x} is", "tell me what {x} is",
                           "what's {x}", "do you know what {x} is", "explain {x} [simply|to a child]"],
                          ["a child asks me what {x} is, what do I say"]),
                 "{x} is {y}.", x=x, y=y, bare=x.split(" ", 1)[-1] if x[:2] in ("a ", "an") else x)


def calendar(g):
    """Days, months, seasons and the alphabet."""
    roll = g.num(0, 6)
    if roll in (0, 1):
        names, kind = (fx.DAYS, "day") if roll == 0 else (fx.MONTHS, "month")
        i = g.num(0, len(names) - 1)
        after = g.chance(0.6)
        x, y = names[i], names[(i + (1 if after else -1)) % len(names)]
        word = "after" if after else "before"
        return reply(g, g.pat(["what {k} comes {w} {x}", "which {k} is {w} {x}", "what comes {w} {x}",
                               "what is the {k} {w} {x}"], ["name the {k} that stands {w} {x}"]),
                     "[{y} comes {w} {x}|the {k} {w} {x} is {y}|{w} {x}{v} {y}].", x=x, y=y, k=kind,
                     w=word, v=" comes" if after else " is")
    if roll == 2:
        i = g.num(0, 11)
        return reply(g, "how many days [does {m} have|are in {m}|are there in {m}]",
                     "[{m} has {d} days|there are {d} days in {m}].", m=fx.MONTHS[i], d=fx.MONTH_DAYS[i])
    if roll == 3:
        kind, names = g.pick([("days of the week", fx.DAYS), ("months of the year", fx.MONTHS),
                              ("four seasons", fx.SEASONS)])
        return (polish(g, g.fill("[name|list|tell me|what are] the " + kind)),
                capitalise(f"the {kind} are {', '.join(names[:-1])} and {names[-1]}."))
    if roll == 4:
        s = g.pick(fx.SEASONS)
        note = g.some(fx.SEASON_NOTES[s], 2)
        return reply(g, "[what happens in {s}|describe {s}|tell me about {s}|what is {s} like|"
                     "why do people like {s}]", "in {s}, {n} and {o}.", s=s, n=note[0], o=note[1])
    if roll == 5:
        i = g.num(0, 24)
        x, y = chr(65 + i), chr(66 + i)
        return reply(g, "[what|which] letter comes after {x}", "[the letter after {x} is {y}|{y} comes "
                     "after {x}|after {x} comes {y}].", x=x, y=y)
    names = g.pick([fx.DAYS, fx.MONTHS])
    i = g.num(0, len(names) - 1)
    which = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
    unit = "day of the week" if names is fx.DAYS else "month of the year"
    return reply(g, "[what|which] is the {n} {u}", "the {n} {u} is {x}.", n=which.split()[i], u=unit,
                 x=names[i])


def category(g):
    """Lists of things of a kind, and what kind a thing is."""
    kind = g.pick(list(fx.CATEGORIES))
    items = fx.CATEGORIES[kind]
    many = fx.UNCOUNTED.get(kind) or lx.plural(kind)
    if g.chance(0.6):
        n = g.num(2, 5)
        word = COUNT_WORDS[n] if g.chance(0.7) else str(n)
        chosen = [i if kind in ("language", "sport", "colour", "drink", "planet", "country")
                  else a(i) for i in g.some(items, n)]
        question = polish(g, g.fill(g.pat(["name {n} {k}", "list {n} {k}", "give me {n} {k}",
                                           "tell me {n} {k}", "can you name {n} {k}",
                                           "give me a list of {n} {k}", "write down {n} {k}"],
                                          ["think of {n} {k} and name them"]), dict(n=word, k=many)))
        style = g.num(0, 3)
        if style == 0:
            return question, capitalise("\n".join(f"{i + 1}. {c}" for i, c in enumerate(chosen)).title()
                                        if kind in ("country", "planet", "language") else
                                        "\n".join(f"{i + 1}. {c}" for i, c in enumerate(chosen)))
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
    return reply(g, "is {x} a {k}", "yes, {x} is a {k}." if truth else "no, {x} is not a {k}. it is a {r}.",
                 x=thing, k=kind if truth else other, r=kind)


def compare(g):
    """Which of two is bigger, smaller, faster or slower."""
    table, up, down = g.pick([(fx.SIZES, "bigger", "smaller"), (fx.SPEEDS, "faster", "slower")])
    i, j = sorted(g.some(range(len(table)), 2))
    low, high = table[i], table[j]
    word, winner, loser = (up, high, low) if g.chance(0.6) else (down, low, high)
    x, y = (winner, loser) if g.chance(0.5) else (loser, winner)
    if g.chance(0.6):
        return reply(g, g.pat(["[which|what] is {w}, a {x} or a {y}", "who is {w}, a {x} or a {y}",
                               "is a {x} or a {y} {w}"], ["a {x} and a {y} stand side by side, which is {w}"]),
                     "[a {a} is {w} than a {b}|the {a} is {w}].", w=word, x=x, y=y, a=winner, b=loser)
    return reply(g, "is a {x} {w} than a {y}",
                 "yes, a {x} is {w} than a {y}." if x == winner else
                 "no, a {x} is not {w} than a {y}.", w=word, x=x, y=y)


def words(g):
    """Past tenses, plurals, spelling and example sentences."""
    roll = g.num(0, 6)
    if roll == 5:
        x, y = g.pick(fx.RHYMES)
        return reply(g, "[what rhymes with|which word rhymes with|give me a rhyme for|find a rhyme for] "
                     "[{x}|\"{x}\"]", "[\"{y}\" rhymes with \"{x}\"|{x} rhymes with {y}].", x=x, y=y)
    if roll == 6:
        x, y = g.pick(fx.HELLO)
        return reply(g, "[how do you say hello in|what is hello in|say hello in|translate hello [to|into]] "
                     "{x}", "\"hello\" in {x} is \"{y}\".", x=x, y=y)
    if roll == 0:
        x, y = g.pick(fx.PAST)
        return reply(g, "[what is the past tense of|give me the past tense of|what is the past of] "
                     "[{x}|\"{x}\"]", "the past tense of \"{x}\" is \"{y}\".", x=x, y=y)
    pool = lx.COUNTABLE + list(lx.ANIMALS) + ["child", "man", "woman", "foot", "tooth", "baby"]
    x = g.topic(pool)
    if roll == 1:
        return reply(g, "[what is the plural of|give me the plural of|plural of] [{x}|\"{x}\"]",
                     "the plural of \"{x}\" is \"{y}\".", x=x, y=lx.plural(x))
    if roll == 2:
        return reply(g, "[how do you spell|spell|spell the word|how is] [{x}|\"{x}\"]".replace(
            "|how is", ""), "{x} is spelled {y}.", x=x, y="-".join(x.upper()))
    if roll == 3:
        return reply(g, "what is the first letter of [{x}|\"{x}\"]",
                     "the first letter of \"{x}\" is {y}.", x=x, y=x[0].upper())
    adj = g.fill("[big|small|old|nice|lovely|round|little|beautiful]")
    sentence = g.pick(["the {x} is very {adj}.", "I saw a {adj} {x} yesterday.",
                       "my friend has a {adj} {x}.", "there is a {x} near the door.",
                       "we looked at the {x} for a long time."])
    return reply(g, g.pat(["[write|make|give me] a sentence with [the word|] \"{x}\"",
                           "use [the word|] \"{x}\" in a sentence"],
                          ["show me how \"{x}\" is used"]), sentence, x=x, adj=adj)


def misc(g):
    """Single facts."""
    q, ans = g.pick(fx.MISC)
    return polish(g, q), ans


KINDS = [animal_fact] * 4 + [describe_animal] * 3 + [capital] * 3 + [opposite] * 3 + [colour] * 2 + \
        [job] * 3 + [definition] * 4 + [calendar] * 4 + [category] * 3 + [compare] * 2 + \
        [words] * 3 + [misc] * 3


def pair(g):
    """One question and its answer."""
    return g.pick(KINDS)(g)


def make(g):
    """One question-and-answer conversation of a single turn; now and then as plain text."""
    question, answer = pair(g)
    if g.chance(0.05):
        return f"Question: {question}\nAnswer: {answer}"
    return turns((question, answer))
