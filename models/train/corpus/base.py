"""The small grammar engine that every corpus module builds on.

A template is a string with nested alternatives, `[big|small|]`, and slots, `{name}`; `expand`
chooses the alternatives with a seeded random generator, fills the slots, mends "a"/"an" and
capitalises sentences. A `Gen` also knows which split it writes for: in the split "train" it
never touches a held-out name, topic or sentence pattern; in "names", "topics" or "patterns"
it uses only the held-out ones of that kind.
"""

import random
import re
import zlib

from . import holdout

INNERMOST = re.compile(r"\[([^\[\]]*)\]")
ARTICLE = re.compile(r"\b([Aa])n? (?=([A-Za-z]+))")
SENTENCE = re.compile(r"(^\"?|[.!?]\"? \"?|\n\"?|[:,] \")([a-z]+)(?= ?(\w*))")
SPEECH = frozenset("said asked cried shouted called whispered wondered answered".split())
VOWEL_EXCEPTIONS = ("uni", "use", "euro", "one", "once", "ukulele")
SILENT_H = ("hour", "honest", "heir", "honour", "llm", "http")


def _article(match):
    word = match.group(2).lower()
    vowel = word[0] in "aeiou" and not word.startswith(VOWEL_EXCEPTIONS)
    vowel = vowel or word.startswith(SILENT_H)
    return match.group(1) + ("n " if vowel else " ")


def _sentence_start(match):
    before, word, following = match.groups()
    if before in ('?" ', '!" ') and (word in SPEECH or following in SPEECH):
        return before + word
    return before + word[0].upper() + word[1:]


def mend(text):
    """Collapses spaces, and corrects a/an."""
    text = re.sub(r" +", " ", text).replace(" .", ".").replace(" ,", ",").replace(" !", "!")
    return ARTICLE.sub(_article, text).strip()


def capitalise(text):
    """Upper-cases the first letter of each sentence."""
    return SENTENCE.sub(_sentence_start, text)


def held_number(*parts):
    """Whether a tuple of numbers and words belongs to the held-out tenth of its kind."""
    return zlib.crc32(repr(parts).encode()) % 10 == 0


class Gen:
    """A seeded source of choices for one split; `short` makes the last part of training."""

    def __init__(self, seed, split="train", short=False):
        self.rng = random.Random(seed)
        self.split, self.short = split, short
        self.used_held = False

    def pick(self, items):
        """One of `items`, each equally likely."""
        return items[int(self.rng.random() * len(items))]

    def chance(self, p):
        """True with probability `p`."""
        return self.rng.random() < p

    def num(self, lo, hi):
        """A whole number from `lo` to `hi`, both included."""
        return self.rng.randint(lo, hi)

    def some(self, items, k):
        """`k` different items in random order."""
        return self.rng.sample(list(items), k)

    def pat(self, train, held):
        """A sentence pattern: from `held` in the split "patterns", else from `train`."""
        if self.split == "patterns":
            self.used_held = True
            return self.pick(held)
        return self.pick(train)

    def topic(self, items, key=lambda item: item):
        """One of `items` on this split's side of the held-out topics."""
        held = self.split == "topics"
        side = [i for i in items if (key(i) in holdout.TOPICS) == held]
        return self.pick(side or list(items)) if held else self.pick(side)

    def name(self, kind="any"):
        """A first name and its pronoun kind, 'f' or 'm'."""
        kind = self.pick("fm") if kind == "any" else kind
        if self.split == "train" and self.chance(0.1):
            return invented_name(self, kind), kind
        table = holdout.NAMES if self.split == "names" else NAMES
        return self.pick(table[kind]), kind

    def fill(self, template, ctx=None):
        """Expands a template without capitalising it."""
        while True:
            match = INNERMOST.search(template)
            if not match:
                break
            choice = self.pick(match.group(1).split("|"))
            template = template[: match.start()] + choice + template[match.end() :]
        if ctx:
            template = template.format_map(ctx)
        return mend(template)

    def say(self, template, ctx=None):
        """Expands a template into finished sentences."""
        return capitalise(self.fill(template, ctx))


PRONOUNS = {
    "f": dict(he="she", him="her", his="her", self="herself"),
    "m": dict(he="he", him="him", his="his", self="himself"),
    "n": dict(he="it", him="it", his="its", self="itself"),
    "p": dict(he="they", him="them", his="their", self="themselves"),
}

NAMES = {
    "f": (
        """Mia Anna Lucy Emma Lily Rosa Nora Clara Ella Ruby Ivy Zoe Alice Sara Maya Leila Hana
Ines Priya Amina Greta Freya Yuki Sofia Olga Tara Nina Molly Daisy Poppy Luna Stella Eva Julia Mary
Jane Kate Beth Amy Rose Grace Hannah Sophie Chloe Laura Elena Fatima Aisha Mei Lin Naomi Carmen
Bella Dora Edith Flora Gina Helen Irene Jill Kim Lena Mona Nell Opal Paula Rita Susan Tina Una Vera
Wendy Zara Zoé Chloé""".split()
    ),
    "m": (
        """Tom Ben Sam Max Leo Jack Finn Noah Adam Luke Omar Ravi Kenji Hugo Felix Oscar Theo Milo
Ali Ivan Pedro Jonas Emil Lars Marco Diego Tariq Hassan Arun Bruno Carl Dan Eric Fred George Harry
Ian Jim Kevin Liam Mark Nick Otto Paul Peter Rob Simon Tim Victor Will Zack John James David Henry
Charlie Alex Joe Bob Billy Toby Rex Sven Andre Luis Karim Yusuf Wei Chen Kofi Jamal Pierre José
Anton Boris Gus Ned Ron Stan""".split()
    ),
}


def invented_name(g, kind):
    """A name made of syllables, so that the model learns to copy names it has never seen."""
    heads = (
        "Ba Be Bo Da De Do Fa Fi Ga Go Ha Jo Ka Ki La Le Lo Ma Me Mo Na Ni Pa Pi Ra Ri Ro Sa Se So"
        " Ta Te Vi Wa Zo"
    )
    middles = ["", "", "l", "n", "r", "m", "lin", "ran", "vi", "do", "be", "ss", "nn", "ri", "ta"]
    tails = (
        ["a", "ia", "ena", "ine", "elle", "ara"]
        if kind == "f"
        else ["o", "an", "us", "ek", "or", "in"]
    )
    return g.pick(heads.split()) + g.pick(middles) + g.pick(tails)


def turns(*pairs, system=None):
    """A conversation as a list of messages from (user, assistant) pairs."""
    out = [{"role": "system", "content": system}] if system else []
    for user, assistant in pairs:
        out.append({"role": "user", "content": user})
        out.append({"role": "assistant", "content": assistant})
    return out
