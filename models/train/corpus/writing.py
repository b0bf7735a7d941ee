"""Small writing tasks: poems, descriptions, letters, wishes, tips, and sentences to complete."""

from . import lexicon as lx
from .base import turns
from .noise import polish

POEMS = [
    "{the} {t}, {the} {t}, so fair to see,\nit [always|often] brings a smile to me.",
    "I saw {one} {t} {at} the {p},\nand joy was written on my face.",
    "oh {t}, oh {t}, so [bright|dear] to me,\nI [think of|dream of] you beside the sea.",
    "{the} {t} was {c}, the sky was blue,\nand I was happy, just like you.",
    "I had {one} {t}, I had a friend,\nI hoped the day would never end.",
    "when I see {one} {t} at night,\nthe [whole wide|sleepy] world seems full of light.",
]
PLACE_LINES = """the {p} is [quiet|very old|full of life|a lovely place] [in the morning|at \
night|in winter|].
many [birds|people|children|animals] [come|go] there [every day|when the sun shines|].
you can [hear|listen to] the wind [in the trees|and the birds|].
there is a [small|wide|narrow] path that leads to a {q}.
[in summer|in the evening], the light is [golden|soft|warm].
near the {p}, there is a {t} that [someone left there|nobody wants|everyone knows].
{n} [goes|walks] there with {his} {a} [every {w}|].
it smells of [flowers|rain|fresh bread|wood and earth].""".split(
    "\n"
)
THING_LINES = """the {t} is {c} and [small|big|heavy|light|old].
it [stands|lies] [on the table|near the window|in a box|under the bed].
it [belongs|once belonged] to {n}.
{n} [uses|takes] it every {w}.
it [feels|is] [smooth|warm|cold|rough] [in your hand|to the touch|].
nobody knows [who made it|how old it is|where it came from].""".split(
    "\n"
)
TIPS = {
    "sleep better": [
        "go to bed at the same time every day",
        "keep your room dark and quiet",
        "put away your phone",
    ],
    "make friends": ["smile and say hello", "listen to others", "share what you have"],
    "learn faster": ["practise a little every day", "ask questions", "sleep well"],
    "stay healthy": ["eat fruit and vegetables", "drink enough water", "go for a walk every day"],
    "save money": ["write down what you spend", "buy only what you need", "mend what is broken"],
    "keep a plant alive": ["give it light", "water it when the earth is dry", "keep it warm"],
    "write better": ["read a lot", "use short sentences", "read your text aloud"],
    "be kind": ["listen to others", "help when you can", "say thank you"],
    "train a dog": ["be patient", "give it praise", "practise every day"],
    "wake up early": ["go to bed early", "put the clock far from your bed", "open the curtains"],
    "calm down": ["breathe slowly", "count to ten", "go for a short walk"],
    "keep a room tidy": [
        "put things back after use",
        "throw away what is broken",
        "clean a little every day",
    ],
}
WHAT_IF = {
    "it rains": "take an umbrella or stay inside",
    "I am hungry": "eat something good",
    "I am thirsty": "drink some water",
    "I am cold": "put on a warm coat",
    "I am tired": "rest or go to sleep",
    "I am lost": "stay calm and ask someone for help",
    "I am bored": "read a book or go for a walk",
    "I am late": "hurry, and tell the others that you will be late",
    "my friend is sad": "listen and be kind",
    "I made a mistake": "say sorry and try again",
    "there is a fire": "leave the house and call for help",
    "I lost my key": "look for it where you saw it last",
    "I am ill": "rest and see a doctor",
    "I am angry": "breathe slowly and count to ten",
    "my room is dirty": "clean it up",
    "I cannot sleep": "read a quiet book or drink warm milk",
    "I am afraid": "talk to someone you trust",
}
STARTS = [
    ("the sun {s}", "the sun shines on the {p}."),
    ("every morning, {n}", "every morning, {n} drinks a cup of tea and looks out of the window."),
    ("my favourite animal is", "my favourite animal is the {a}, because it is so {adj}."),
    ("in the {p}, there was", "in the {p}, there was a {adj} {a}."),
    ("the {a} was {adj}, but", "the {a} was {adj}, but it was also kind."),
    ("I like {f} because", "I like {f} because it tastes good."),
    ("last night, I dreamed", "last night, I dreamed of a {adj} {a} and a {t}."),
    ("{n} opened the door and", "{n} opened the door and saw a {adj} {a}."),
]
FIELDS = "[how to|how I can|ways to]"


def slots(g):
    """Random words for the templates."""
    name, sex = g.name()
    p = g.topic(list(lx.PLACES))
    return dict(
        n=name,
        his="her" if sex == "f" else "his",
        he="she" if sex == "f" else "he",
        p=p,
        at=lx.PLACES[p],
        q=g.topic(list(lx.PLACES)),
        t=g.topic(lx.THINGS),
        a=g.topic(list(lx.ANIMALS)),
        c=g.pick(lx.COLOURS),
        w=g.pick(["morning", "evening", "day", "week"]),
        f=g.pick(lx.FOODS),
        adj=g.pick("small big kind clever old lovely funny quiet strange happy".split()),
        s="shines",
    )


def poem(g):
    """Two or four lines about a topic."""
    c = slots(g)
    pool = [
        "sea",
        "moon",
        "sun",
        "rain",
        "snow",
        "wind",
        "night",
        "sky",
        "spring",
        "winter",
        "summer",
    ]
    c["t"] = g.topic(list(lx.ANIMALS) + lx.THINGS + lx.MORE_THINGS + pool * 6)
    bare = c["t"] in ("spring", "winter", "summer")
    the = c["t"] in pool
    c.update(the="" if bare else "the", one="" if bare else "the" if the else "a")
    ask = g.fill(
        g.pat(
            [
                "write [me |]a [short |little |]poem about {one} {t}",
                "[tell me|make up|give me] a [short |]poem about {one} {t}",
                "can you write a poem about {one} {t}",
                "write [some verses|a rhyme|two lines] about {one} {t}",
                "a poem about {one} {t}[| please]",
            ],
            ["rhyme for me about {one} {t}"],
        ),
        c,
    )
    return polish(g, ask), "\n".join(g.say(v, c) for v in g.some(POEMS, g.pick([1, 2, 2])))


def describe(g):
    """A few sentences on a place or a thing."""
    c = slots(g)
    place = g.chance(0.6)
    word = c["p"] if place else c["t"]
    ask = g.fill(
        g.pat(
            [
                "describe a {x}",
                "write [a few sentences|a short text|a paragraph] about a {x}",
                "tell me about a {x}",
                "describe the {x}",
                "write a description of a {x}",
                "what does [the|a] {x} look like",
            ],
            ["paint the {x} with words"],
        ),
        dict(x=word),
    )
    lines = g.some(PLACE_LINES if place else THING_LINES, g.num(3, 4))
    if place and "{p}" not in lines[0]:
        lines[0] = PLACE_LINES[0]
    if not place:
        lines = [THING_LINES[0]] + [v for v in lines if v != THING_LINES[0]]
    return polish(g, ask), " ".join(g.say(v, c) for v in dict.fromkeys(lines))


def letter(g):
    """A short letter, an invitation or a wish."""
    c = slots(g)
    other, _ = g.name()
    c["o"] = other
    roll = g.num(0, 3)
    if roll == 0:
        return polish(
            g,
            g.fill(
                g.pat(
                    ["write a [short |]letter to {n}", "write [an email|a note] to {n}"],
                    ["{n} should get a few lines by post"],
                ),
                c,
            ),
            False,
        ).replace(c["n"].lower(), c["n"]), g.say(
            "dear {n},\nI hope that you are well. [yesterday, I was {at} the {p} and saw a {a}|I"
            " have a new {t}, and it is {c}|the weather is fine, and I think of you]. [please come"
            " and see me soon|write to me soon].\n[your friend|best wishes],\n{o}",
            c,
        )
    if roll == 1:
        day = g.pick("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
        return polish(
            g,
            g.fill(
                g.pat(
                    [
                        "invite {n} to [my birthday|a party] on {d}",
                        "write an invitation to {n} for {d}",
                    ],
                    ["I want {n} to come on {d}, put it nicely"],
                ),
                dict(c, d=day),
            ),
            False,
        ).replace(c["n"].lower(), c["n"]), g.say(
            "dear {n},\nplease come to my [party|birthday] on {d}. [there will be cake and music|I"
            " would be very happy to see you].\nsee you soon!",
            dict(c, d=day),
        )
    if roll == 2:
        return polish(
            g, g.fill("[write|give me|make] a birthday [wish|card|message] for {n}", c), False
        ).replace(c["n"].lower(), c["n"]), g.say(
            "happy birthday, {n}! [I wish you a wonderful day|may all your wishes come true|have a"
            " day full of joy]!",
            c,
        )
    return polish(
        g, g.fill("[write|write me] a thank-you note to {n} for the {t}", c), False
    ).replace(c["n"].lower(), c["n"]), g.say(
        "dear {n},\nthank you very much for the {t}. [I like it very much|it is lovely|I use it"
        " every day].\n[your friend|best wishes],\n{o}",
        c,
    )


def tips(g):
    """Advice on everyday things."""
    if g.chance(0.5):
        what, things = g.pick(list(TIPS.items()))
        ask = g.fill(
            "[how can I|how do I|tell me how to|give me tips to|what can I do to|give me advice on"
            " how to] {w}",
            dict(w=what),
        )
        if g.chance(0.3):
            return polish(g, ask), g.say(
                "\n".join(f"{i + 1}. {t}." for i, t in enumerate(g.some(things, 3)))
            ).replace(". " + things[0][0], ". " + things[0][0].upper())
        a, b, c = g.some(things, 3)
        return polish(g, ask), g.say("[to {w}, |]{a}, {b}, and {c}.", dict(w=what, a=a, b=b, c=c))
    what, then = g.pick(list(WHAT_IF.items()))
    return polish(
        g,
        g.fill(
            g.pat(
                [
                    "what should I do [if|when] {w}",
                    "{w}, what should I do",
                    "what can I do when {w}",
                ],
                ["give me counsel for the moment when {w}"],
            ),
            dict(w=what),
        ),
    ), g.say(
        "[if {w}, you should {t}|you should {t}|it is best to {t}].".replace(
            "if {w}, ",
            "if "
            + what.replace("I am ", "you are ").replace("I ", "you ").replace("my ", "your ")
            + ", ",
        ),
        dict(t=then),
    )


def complete(g):
    """A sentence to finish."""
    c = slots(g)
    start, whole = g.pick(STARTS)
    start, whole = g.say(start, c), g.say(whole, c)
    return (
        g.fill(
            g.pat(
                [
                    "[complete|finish|continue] [this sentence|the sentence]: ",
                    "how does this sentence go on? ",
                ],
                ["the rest of this sentence is missing: "],
            )
        )
        .capitalize()
        .strip()
        + " "
        + start
        + g.pick(["...", " ...", ""]),
        whole,
    )


def naming(g):
    """Names for pets and things."""
    a = g.topic(list(lx.ANIMALS))
    names = list(dict.fromkeys(g.name()[0] for _ in range(4)))[:3]
    return (
        polish(
            g,
            g.fill(
                "[what is a good name for|give me a name for|how should I name|suggest a name for]"
                " my {a}",
                dict(a=a),
            ),
        ),
        g.say(
            "[you could call your {a} {n}|{n} is a good name for a {a}|{n}, {m} and {o} are good"
            " names for a {a}]",
            dict(a=a, n=names[0], m=names[1 % len(names)], o=names[-1]),
        )
        + ".",
    )


KINDS = [poem] * 3 + [describe] * 3 + [letter] * 2 + [tips] * 2 + [complete] + [naming]


def pair(g):
    """One request and the text."""
    return g.pick(KINDS)(g)


def make(g):
    """One writing task of a single turn."""
    return turns(pair(g))
