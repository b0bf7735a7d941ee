"""Short stories about animals, people, things, places, weather and virtues.

A story is a cast (hero, friend, place, wish) put through one of the plots in `plots.py`; the
request is one of many phrasings that name the topic. Raw stories without a request teach plain
text completion.
"""

import re

from . import lexicon as lx
from .base import PRONOUNS, turns
from .more_plots import ENDINGS, HELD_PLOTS, MORALS, THING_PLOTS
from .plots import HELD_OPENINGS, OPENINGS, PLOTS

ASK = """[tell|please tell|can you tell|could you tell] me [a|a short|a little|a nice] story \
about {t}
[write|please write|can you write|could you write|make up] [a|a short|a little|a nice] story \
about {t}
[write|tell] me a [bedtime story|happy story|fairy tale|tale|very short story] about {t}
I [want|would like] [a|a short|to hear a|to read a] story about {t}
a story about {t}[| please]
story about {t}[| please]
[do you know|have you got] a [good |]story about {t}?
[give|tell] me a story with {t} in it
write [a few sentences|a short tale|some sentences|a paragraph] about {t} [as a story|for a \
child|for my daughter|for my son]
[my daughter|my son|my little brother|my little sister] wants a story about {t}
[let us|let's] have a story about {t}
now [tell|write] a story about {t}
tell a story about {t}
write a story where {t} [is the hero|learns something|has an adventure|finds a friend]""".split(
    "\n"
)
HELD_ASK = """invent a tale starring {t}
I feel like hearing a story whose hero is {t}
come up with a short story featuring {t}
it is bedtime, so a story about {t} would be lovely""".split(
    "\n"
)
ASK_ANY = """tell me a story
tell me a [short|nice|good|bedtime|happy|funny] story[| please]
[can|could] you tell me a story?
write a [short |little |]story
please write a [short |]story
I want to hear a story
story[| please]
make up a story""".split(
    "\n"
)


ALONE = [e for e in ENDINGS if "{fname}" not in e and "they " not in e]
ADJ = (
    "[little|small|young|brave|kind|clever|gentle|curious|shy|cheerful|quiet|old|friendly"
    "|lonely|happy]"
)


def cast_animal(g, word=None):
    """An animal hero: a dictionary of slots for the plots."""
    word = word or g.topic(
        list(lx.ANIMALS) if g.split == "topics" or g.chance(0.6) else lx.MORE_ANIMALS
    )
    name, sex = g.name()
    pro = PRONOUNS[sex if g.chance(0.75) else "n"]
    home, food, skill = "a small den", g.pick(lx.ANY_FOOD), g.pick(lx.ANY_SKILL)
    if word in lx.ANIMALS:
        _, home, food, _, skill = lx.ANIMALS[word]
    return dict(pro, kind=word, name=name, food=food, skill=skill, home=home, animal=True)


def cast_person(g, word=None):
    """A human (or nearly human) hero."""
    word = word or g.topic(list(lx.PEOPLE))
    sex = lx.PEOPLE.get(word, "any")
    name, got = g.name("any" if sex in ("any", "n") else sex)
    pro = PRONOUNS["n" if sex == "n" else got]
    skill = g.pick(
        [
            "whistle a tune",
            "tell good stories",
            "climb trees",
            "run fast",
            "fix things",
            "sing softly",
            "listen well",
            "tie strong knots",
            "find the way home",
        ]
    )
    home = g.pick(["a small house", "a cosy cottage", "a little hut", "a tall house"])
    return dict(
        pro, kind=word, name=name, food=g.pick(lx.FOODS), skill=skill, home=home, animal=False
    )


def set_scene(g, hero):
    """Adds place, friend, object and weather to a hero's slots."""
    place = hero.get("place") or g.topic(list(lx.PLACES))
    pool = list(lx.ANIMALS) + ([] if g.split == "topics" else lx.MORE_ANIMALS)
    friend = hero.get("friend") or g.topic([a for a in pool if a != hero["kind"]])
    fname, fsex = g.name()
    while fname == hero["name"]:
        fname, fsex = g.name()
    fpro = PRONOUNS[fsex]
    things = lx.THINGS if g.split == "topics" or g.chance(0.6) else lx.MORE_THINGS
    thing = hero.get("thing") or g.topic(things)
    hero.update(
        place=place,
        at=lx.PLACES[place],
        friend=friend,
        fname=fname,
        fhe=fpro["he"],
        fhim=fpro["him"],
        fhis=fpro["his"],
        thing=thing,
        colour=g.pick(lx.COLOURS),
        adj=g.fill(ADJ),
        fadj=g.fill(ADJ),
        padj=g.fill("[quiet|green|small|big|sunny|old|pretty|faraway|windy|peaceful]"),
        tadj=g.fill("[shiny|old|tiny|lovely|strange|broken|lost|beautiful|plain|wooden]"),
        sky=g.fill("[sunny|rainy|windy|cold|warm|foggy|bright|snowy|cloudy|fine]"),
        time=g.fill("[morning|afternoon|evening|day]"),
    )
    if hero["kind"] == "child":
        hero["adj"] = g.fill("[little|small|young|brave|kind|clever|shy|cheerful|happy]")
    return hero


def tell(g, hero, plots=None):
    """The text of one story, in one or several paragraphs."""
    patterns = g.split == "patterns"
    plots = plots or (HELD_PLOTS if patterns else PLOTS)
    opening = g.pick(HELD_OPENINGS if patterns else OPENINGS)
    plot = list(g.pick(plots))
    if opening.startswith("one "):
        plot[0] = plot[0].replace("[one day|one {time}]", "that {time}")
        plot[0] = plot[0].replace("one {sky} {time}", "that {time}").replace("one {time}", "then")
    parts = [opening] + plot
    pair = "{fname}" in " ".join(parts)
    parts.append(g.pick(ENDINGS if pair else ALONE))
    if g.chance(0.25) or hero.get("moral"):
        parts.append(hero.get("moral") or g.pick(MORALS))
    parts = [g.say(p, hero) for p in parts]
    if g.chance(0.2):
        cut = g.num(1, 2)
        return " ".join(parts[:cut]) + "\n\n" + " ".join(parts[cut:])
    return " ".join(parts)


LATER = [
    "the next day|a week later|one day in spring|some time later|the following winter|a year later"
]


def tell_long(g, hero):
    """Two or three episodes in the life of one hero, each its own paragraph."""
    parts = [g.say(g.pick(OPENINGS), hero)]
    for episode in range(g.num(2, 3)):
        if episode:
            for key in ("friend", "thing", "place"):
                hero.pop(key, None)
            set_scene(g, hero)
        plot = list(g.pick(PLOTS))
        if episode:
            plot[0] = (
                "["
                + LATER[0]
                + "], "
                + re.sub(
                    r"^(\[one day\|one \{time\}\]|\[one day\|one \{sky\} \{time\}\]|one \{sky\}"
                    r" \{time\}|one \{time\}|one day),? ?",
                    "",
                    plot[0],
                )
            )
        parts.append(" ".join(g.say(s, hero) for s in plot))
    parts[0] += " " + parts.pop(1)
    end = g.say(g.pick(ALONE), hero)
    return "\n\n".join(parts) + " " + end


def subject(g):
    """A random (topic phrase, hero, plots) triple."""
    roll = g.rng.random()
    if roll < 0.42:
        hero = cast_animal(g)
        topic = g.fill(
            g.pick(
                [
                    "a {kind}",
                    "a {kind}",
                    "a {kind}",
                    "a {adj} {kind}",
                    "the {kind}",
                    "a {kind} [named|called] {name}",
                    "{name} the {kind}",
                ]
            ),
            set_scene(g, hero),
        )
        return topic, hero, None
    if roll < 0.60:
        hero = set_scene(g, cast_person(g))
        topic = g.fill(
            g.pick(
                [
                    "a {kind}",
                    "a {kind}",
                    "a {adj} {kind}",
                    "a {kind} [named|called] {name}",
                    "{name} the {kind}",
                ]
            ),
            hero,
        )
        return topic, hero, None
    if roll < 0.72:
        hero = set_scene(g, cast_animal(g) if g.chance(0.6) else cast_person(g))
        topic = g.fill(
            g.pick(
                [
                    "a {kind} and a {friend}",
                    "a {adj} {kind} and a {friend}",
                    "a {kind} [who|that] meets a {friend}",
                    "the {kind} and the {friend}",
                ]
            ),
            hero,
        )
        return topic, hero, "friend"
    return other_subject(g, roll)


def other_subject(g, roll):
    """The rarer topics: things, places, weather, virtues, two at once."""
    hero = cast_animal(g) if g.chance(0.5) else cast_person(g)
    if roll < 0.82:
        hero = set_scene(g, hero)
        topic = g.fill(
            g.pick(
                [
                    "a {thing}",
                    "a {tadj} {thing}",
                    "a {kind} and a {thing}",
                    "a {kind} who finds a {thing}",
                    "the {thing}",
                ]
            ),
            hero,
        )
        return topic, hero, "thing"
    if roll < 0.90:
        hero = set_scene(g, hero)
        topic = g.fill(
            g.pick(
                [
                    "a {place}",
                    "a {padj} {place}",
                    "a {kind} [in|near] a {place}",
                    "life {at} a {place}",
                    "a {kind} and a {place}",
                ]
            ),
            hero,
        )
        return topic, hero, None
    hero = set_scene(g, hero)
    if roll < 0.95:
        virtue = g.topic(list(lx.THEMES))
        hero["moral"] = g.fill(
            "[that is how {hero} learned about|and that is a story about|this is "
            "what people mean by|everyone there still talks about] {v}.",
            dict(hero=hero["name"], v=virtue),
        )
        return virtue, hero, None
    weather = g.pick(lx.WEATHER)
    bare = weather.split(" ", 1)[1] if weather.startswith(("a ", "the ")) else weather
    hero["moral"] = g.fill(
        "[{n} never forgot|after that, {n} always loved|{n} still talks about] {w}.",
        dict(n=hero["name"], w="that storm" if bare == "storm" else weather),
    )
    hero["weather"] = weather
    return weather, hero, "weather"


def make_long(g):
    """A request for a long story, and the story."""
    hero = set_scene(g, cast_animal(g) if g.chance(0.6) else cast_person(g))
    topic = g.fill(g.pick(["a {kind}", "a {adj} {kind}", "a {kind} [named|called] {name}"]), hero)
    text = tell_long(g, hero)
    request = g.fill(
        g.pick(
            [
                "[tell me|write|please write|can you tell me] a long[|er] story about {t}",
                "write a story [with several paragraphs|in three parts] about {t}",
            ]
        ),
        dict(t=topic),
    )
    return turns((ask(g, request), text))


def follow_up(g, hero, text):
    """A question about the story that was just told."""
    if hero["name"] not in text:
        return None
    asks = [
        ("what was the name of the {kind}", "the {kind} was called {name}."),
        (
            "[who was the hero of the story|who was the story about|who is the story about]",
            "the story was about {name}, a {kind}.",
        ),
        ("tell me again, who was {name}", "{name} was a {kind}."),
    ]
    if hero["fname"] + ", a" in text or "named " + hero["fname"] in text:
        asks.append(("who was {fname}", "{fname} was a {friend}."))
        asks.append(("who did {name} meet", "{name} met {fname}, a {friend}."))
    q, a = g.pick(asks)
    return ask(g, g.fill(q, hero)), g.say(a, hero)


def make(g):
    """One story example: messages or, for raw completion, a string."""
    if g.split == "train" and g.chance(0.05):
        return make_long(g)
    topic, hero, want = subject(g)
    if want == "friend":
        text = tell(g, hero, PLOTS_WITH["friend"])
    elif want == "thing":
        text = tell(g, hero, THING_PLOTS)
    elif want == "weather":
        opening = g.say(
            "[one {time}, {weather} came to the {place}|{name} the {kind} loved {weather}|"
            "everyone {at} the {place} was talking about {weather}].",
            hero,
        )
        text = opening + " " + tell(g, hero)
    else:
        text = tell(g, hero)
    if g.chance(0.22):
        return text
    if g.chance(0.1):
        return turns((ask(g, g.fill(g.pick(ASK_ANY))), text))
    first = (ask(g, g.fill(g.pat(ASK, HELD_ASK), dict(t=topic))), lead(g, topic) + text)
    second = follow_up(g, hero, text) if g.chance(0.07) else None
    return turns(first, second) if second else turns(first)


def lead(g, topic):
    """Sometimes a sentence before the story."""
    if g.chance(0.88):
        return ""
    return g.say("[Here is|This is] [a|a short|a little] story about {t}.", dict(t=topic)) + "\n\n"


def ask(g, text):
    """Finishes a request: capital and final mark, or neither."""
    from .noise import polish

    return polish(g, text)


PLOTS_WITH = {"friend": [p for p in PLOTS if any("{fname}" in s and "{friend}" in s for s in p)]}
