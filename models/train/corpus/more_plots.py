"""Plots about a thing, held-out plots that training never sees, endings and morals.

The slots are those of `plots.py`.
"""

HELD_PLOTS = [
    [
        (
            "the bridge near the {place} had fallen down, and {fname} the {friend} was stuck on the"
            " far bank."
        ),
        "{name} gathered planks and rope from all the neighbours.",
        "piece by piece, {he} laid a new path across the water while {fname} cheered.",
        "when the last plank was in its place, {fname} walked over it and bowed.",
    ],
    [
        "{name} kept a diary, and one {time} it was gone.",
        "{he} followed a trail of torn pages that led to {fname}, a {fadj} {friend}.",
        '"I only wanted to learn how to read," whispered {fname}.',
        "{name} was not angry, and instead became {fname}'s teacher.",
    ],
    [
        "a letter came for {name}, with no stamp and no sender.",
        'inside was one line: "bring {food} to the {place} at noon."',
        "there {he} found {fname} the {friend}, who had moved in nearby and knew nobody.",
        "they ate the {food} and made plans for the whole summer.",
    ],
]

THING_PLOTS = [
    [
        (
            "one {time}, {name} found a {tadj} {thing} [near|by] the {place}. {he} [had never seen"
            " such a {thing}|picked it up and looked at it]."
        ),
        (
            '"whose {thing} is this?" {he} [asked|wondered]. {he} [asked everyone {at} the'
            " {place}|went from door to door], but nobody knew."
        ),
        (
            'then {he} met a {friend} named {fname}, who was [looking for something|very sad]. "I'
            ' have lost my {thing}," said {fname}.'
        ),
        (
            "{name} [liked the {thing} very much|wanted to keep it], but {he} gave it back [at"
            " once|with a smile]."
        ),
        (
            '"you are [so kind|an honest {kind}]," said {fname}. "[let us use it together|you may'
            ' use it whenever you like]!"'
        ),
        "and so the {thing} [brought them together|made two friends].",
    ],
    [
        (
            "{name} had a {tadj} {thing}. it was {his} [favourite|most precious] thing, and {he}"
            " took it [everywhere|with {him} every day]."
        ),
        "one {sky} {time}, the {thing} [was gone|disappeared|fell into the water].",
        "{name} looked [everywhere|under the bed and behind the door], but there was no {thing}.",
        "{his} friend {fname}, a {fadj} {friend}, helped {him} look [{at} the {place}|all day].",
        (
            "[at last|in the end], they saw something {colour} [in the grass|between two stones]."
            " it was the {thing}!"
        ),
        (
            "{name} [was so happy that {he} danced|hugged the {thing} and thanked {fname}|let"
            " {fname} have a turn with the {thing}]."
        ),
    ],
    [
        (
            "there was a {tadj} {thing} in a [shop window|little shop] near the {place}. nobody"
            " [wanted|bought] it, because it was [old|plain|{colour}]."
        ),
        (
            'one day, {name} came by and [saw|stopped to look at] the {thing}. "[you are just what'
            ' I need|I like you]," said {name}.'
        ),
        (
            "{he} took the {thing} home, [cleaned|mended] it, and [painted it {colour}|put it by"
            " the window]."
        ),
        (
            'when {fname} the {friend} saw it, {fhe} said, "what a lovely {thing}! [where did you'
            ' get it|is it new]?"'
        ),
        (
            '"it is the old {thing} from the shop," said {name}. "it only needed [a little'
            ' care|someone to love it]."'
        ),
        "the {thing} stayed with {name} for [many years|a very long time].",
    ],
    [
        (
            "{name} [made|built] a {thing} [out of wood and paper|with {his} own hands|from old"
            " things]."
        ),
        (
            "it was {colour} and [very|quite] [big|small|pretty]. {he} [showed it to|took it to]"
            " {fname}, a {fadj} {friend}."
        ),
        '"may I try the {thing}?" asked {fname}. "yes, but [be careful|take care]," said {name}.',
        (
            "[oh no|but then]! the {thing} [broke|fell and broke] in two. {fname} [was very"
            " sorry|began to cry]."
        ),
        (
            '"[it does not matter|never mind]," said {name}. "we can make [another one|a better'
            ' one] together."'
        ),
        "and the new {thing} was [even better than the first|the best {thing} {at} the {place}].",
    ],
]

ENDINGS = """and they [were|stayed|remained] friends [for ever|for the rest of their lives|from \
that day on].
from that day on, {name} and {fname} were [best|good|great] friends.
{name} went home [happy|with a smile|tired but happy] and slept [well|all night|like a stone].
that {time}, everyone {at} the {place} was happy.
and {name} never forgot that day.
since then, {name} and {fname} have [met|played|walked|had tea] together every week.
and if you go to the {place}, you [may|can] still see {name} and {fname} [there|together].
they lived happily ever after.
the end.
{name} [smiled|laughed] and [looked at the sky|said, "what a wonderful day"].
after that, {name} [was never lonely again|always had a friend].
and that is [how|the story of how] {name} [found a friend|became a hero|met {fname}].
that night, {name} dreamed of [new adventures|the {place}|the stars].
"this was the best day of my life," said {name}.""".split(
    "\n"
)

MORALS = """the moral of the story is that [kindness always comes back|a good friend is a \
treasure|it is good to share|the truth is best|it is worth trying again|small acts can do great \
things].
{name} had learned that [it is good to help others|nobody is too small to help|sharing makes \
everything better|friends are worth more than gold].
sometimes [a small act of kindness changes everything|the best things are found by chance|we are \
braver than we think].""".split(
    "\n"
)
