"""Counting, arithmetic, comparisons and word problems.

A tenth of all operand pairs and of all counting ranges is held out by a checksum
(`base.held_number`); training rejects them, and the split "numbers" uses only them. What everybody
asks first (sums of numbers up to ten, counting from 1 to at most ten) is a table to be known and
not a rule to be found: it is in the last part of training, and never counted as held out.
"""

from . import lexicon as lx
from .base import held_number, turns
from .noise import polish

WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty""".split()


def basic(op, *numbers):
    """Whether a sum, or counting, is one of those that must simply be known."""
    return max(numbers) <= 10 and (op in ("+", "-", "*") or numbers[0] == 1)


def allowed(g, *parts):
    """Whether these numbers belong to the split of `g`."""
    op = next(p for p in parts if isinstance(p, str))
    if op in ("+", "-", "*", "count") and basic(op, *(p for p in parts if p != op)):
        if g.short or g.split == "numbers":
            return g.short
    return held_number(*parts) == (g.split == "numbers")


def operands(g, op):
    """Two operands on this split's side."""
    while True:
        if op == "*":
            a, b = (g.num(0, 12), g.num(0, 12)) if g.chance(0.9) else (g.num(2, 9), g.num(10, 20))
        elif g.chance(0.65 if g.short else 0.45):
            a, b = g.num(0, 10), g.num(0, 10)
        elif g.chance(0.6):
            a, b = g.num(0, 99), g.num(0, 20)
        else:
            a, b = g.num(0, 99), g.num(0, 99)
        if op == "-" and a < b:
            a, b = b, a
        if op != "*" and g.chance(0.3):
            a, b = (b, a) if op == "+" else (a, b)
        if allowed(g, a, op, b):
            return a, b


ASK_SUM = """what is {e}
what's {e}
{e}
{e} =
how much is {e}
calculate {e}
[please|can you|could you] calculate {e}
what does {e} equal
compute {e}
tell me what {e} is
solve {e}
do you know what {e} is""".split(
    "\n"
)
HELD_SUM = ["my homework says {e}, what do I write", "work out {e} for me"]
ASK_ADD = [
    "add {a} and {b}",
    "what is the sum of {a} and {b}",
    "what do you get when you add {b} to {a}",
    "how much is {a} and {b}",
]
ASK_SUB = [
    "subtract {b} from {a}",
    "what is {b} less than {a}",
    "take {b} away from {a}",
    "what is the difference between {a} and {b}",
]
ASK_MUL = ["multiply {a} by {b}", "what is the product of {a} and {b}", "how much is {a} times {b}"]


def number_name(g, n):
    """A number in digits or, if small, sometimes in letters."""
    return WORDS[n] if n <= 20 and g.chance(0.5) else str(n)


def arithmetic(g):
    """One sum, difference or product: (question, answer, result)."""
    op = g.pick("++++---**")
    a, b = operands(g, op)
    result = a + b if op == "+" else a - b if op == "-" else a * b
    said = {"+": "plus", "-": "minus", "*": "times"}[op]
    sign = {"+": "+", "-": "-", "*": g.pick(["*", "x", "×", "times"])}[op]
    roll = g.rng.random()
    if roll < 0.62:
        expr = g.pick([f"{a} {sign} {b}"] * 3 + ([f"{a}{sign}{b}"] if len(sign) == 1 else []))
        answer_expr = f"{a} {'×' if sign == '×' else 'x' if sign == 'x' else sign} {b}"
        question = g.fill(g.pat(ASK_SUM, HELD_SUM), dict(e=expr))
    elif roll < 0.85:
        words = g.chance(0.4) and a <= 20 and b <= 20
        x, y = (WORDS[a], WORDS[b]) if words else (a, b)
        answer_expr = f"{x} {said} {y}"
        if words and result <= 20:
            result = WORDS[result]
        question = g.fill(g.pat(ASK_SUM, HELD_SUM), dict(e=answer_expr))
    else:
        table = {"+": ASK_ADD, "-": ASK_SUB, "*": ASK_MUL}[op]
        question = g.fill(g.pick(table), dict(a=a, b=b))
        answer_expr = f"{a} {sign} {b}"
    answer = g.pick(
        [f"{answer_expr} is {result}."] * 5
        + [f"{answer_expr} = {result}", f"the answer is {result}."]
    )
    if g.chance(0.06):
        answer = str(result)
        question = question.rstrip("=") + g.pick([", just the number", " (only the number)"])
        return question[0].upper() + question[1:], answer
    keep = question.endswith("=")
    return (question if keep else polish(g, question)), answer[0].upper() + answer[1:]


def division(g):
    """Even division, halves and doubles."""
    b, q = g.num(1, 10), g.num(1, 10)
    while not allowed(g, b * q, "/", b):
        b, q = g.num(1, 10), g.num(1, 10)
    roll = g.num(0, 3)
    if roll == 0:
        return polish(g, f"what is half of {2 * q}"), f"Half of {2 * q} is {q}."
    if roll == 1:
        return (
            polish(g, g.pick([f"what is double {q}", f"double {q}", f"what is twice {q}"])),
            f"Twice {q} is {2 * q}.",
        )
    sign = g.pick(["/", "divided by", "÷"])
    return (
        polish(
            g,
            g.pick(
                [f"what is {b * q} {sign} {b}", f"{b * q} {sign} {b}", f"divide {b * q} by {b}"]
            ),
        ),
        f"{b * q} {sign} {b} is {q}.",
    )


ASK_UP = """count from {a} to {b}
count up from {a} to {b}
[please|can you|could you] count from {a} to {b}
count from {a} up to {b}
[list|write|say|give me|show me] the numbers from {a} to {b}
start at {a} and count to {b}
[write|list] all numbers between {a} and {b}, both included""".split(
    "\n"
)
ASK_TO = "count to {b}|[please|can you|could you] count to {b}|count up to {b}|let us count to {b}"
ASK_DOWN = """count down from {a} to {b}
count backwards from {a} to {b}
count from {a} down to {b}
[please|can you|could you] count down from {a} to {b}""".split(
    "\n"
)
HELD_COUNT = ["I would like to hear every number beginning at {a} and ending at {b}"]


def counting(g):
    """Counting up, down, and in steps."""
    while True:
        roll = g.rng.random()
        step = 1
        if roll < 0.30:
            a, b = 1, g.num(2, 12 if g.short and g.chance(0.5) else 30)
        elif roll < 0.62:
            a = g.num(0, 95)
            b = a + g.num(2, 15)
        elif roll < 0.84:
            a = g.num(3, 30) if g.chance(0.7) else g.num(10, 99)
            b = max(0, a - g.num(3, 15)) if g.chance(0.4) else g.pick([0, 1])
            b = max(b, a - 20)
            step = -1
        else:
            step = g.pick([2, 2, 2, 3, 5, 5, 10, 10, 4])
            a = g.pick([0, step, step, g.num(1, 9) if step == 2 else step])
            b = a + step * g.num(3, 10)
        if allowed(g, "count", a, b, step):
            break
    numbers = list(range(a, b + (1 if step > 0 else -1), step))
    ctx = dict(
        a=number_name(g, a) if a <= 20 and g.chance(0.2) else a,
        b=number_name(g, b) if b <= 20 and g.chance(0.3) else b,
        s=step,
    )
    if step == -1:
        question = g.fill(g.pat(ASK_DOWN, HELD_COUNT), ctx)
    elif step > 1:
        by = {2: "twos", 3: "threes", 4: "fours", 5: "fives", 10: "tens"}[step]
        question = g.fill(
            (
                f"count [by {by}|in {by}|by {step}] from {{a}} to {{b}}|[please|can you] count "
                f"by {by} from {{a}} to {{b}}"
                if g.chance(0.3)
                else f"count [by {by}|in {by}|in steps of {step}] from {{a}} to {{b}}"
            ),
            ctx,
        )
        question = question.split("|")[0]
    elif a == 1 and g.chance(0.7):
        question = g.fill(
            g.pat(
                ASK_TO.replace("[please|can you|could you] ", "").split("|")
                + ["[please|can you|could you] count to {b}"],
                HELD_COUNT,
            ),
            ctx,
        )
    else:
        question = g.fill(g.pat(ASK_UP, HELD_COUNT), ctx)
    if len(numbers) <= 21 and max(numbers) <= 20 and g.chance(0.08):
        return (
            polish(g, question + " in words"),
            ", ".join(WORDS[n] for n in numbers).capitalize() + ".",
        )
    sep = "\n" if g.chance(0.08) else ", "
    return polish(g, question), sep.join(map(str, numbers)) + g.pick(
        ["", ".", "."] if sep == ", " else [""]
    )


def comparison(g):
    """Larger and smaller numbers, neighbours, odd and even."""
    a, b = g.num(0, 100), g.num(0, 100)
    if a == b or not allowed(g, "cmp", a, b):
        return comparison(g)
    roll = g.num(0, 5)
    if roll < 2:
        up = g.chance(0.6)
        word = g.pick(["bigger", "larger", "greater"]) if up else g.pick(["smaller", "less"])
        top, low = (max(a, b), min(a, b)) if up else (min(a, b), max(a, b))
        ask = g.pick(
            [
                f"which is {word}, {a} or {b}",
                f"which number is {word}, {a} or {b}",
                f"what is {word}, {a} or {b}",
            ]
        )
        return polish(g, ask), f"{top} is {word} than {low}."
    if roll == 2:
        up = g.chance(0.5)
        word = "bigger" if up else "smaller"
        yes = (a > b) == up
        return (
            polish(g, f"is {a} {word} than {b}"),
            (
                f"{'Yes' if yes else 'No'}, {a} is"
                f" {word if yes else ('smaller' if up else 'bigger')} than {b}."
            ),
        )
    if roll == 3:
        after = g.chance(0.6) or a == 0
        word, n = ("after", a + 1) if after else ("before", a - 1)
        return (
            polish(
                g,
                g.pick(
                    [
                        f"what comes {word} {a}",
                        f"which number comes {word} {a}",
                        f"what number is {word} {a}",
                    ]
                ),
            ),
            f"{n} comes {word} {a}.",
        )
    if roll == 4:
        kind = "even" if a % 2 == 0 else "odd"
        asked = g.pick(["even", "odd"])
        if g.chance(0.5):
            return polish(g, f"is {a} even or odd"), f"{a} is {kind}."
        return polish(g, f"is {a} {asked}"), f"{'Yes' if asked == kind else 'No'}, {a} is {kind}."
    nums = g.some(range(0, 60), g.num(3, 5))
    body = ", ".join(map(str, nums))
    roll = g.num(0, 2)
    if roll == 0:
        return polish(g, f"what is the largest of {body}"), f"The largest is {max(nums)}."
    if roll == 1:
        return polish(g, f"what is the smallest of {body}"), f"The smallest is {min(nums)}."
    return polish(g, f"sort these numbers: {body}", False), ", ".join(map(str, sorted(nums))) + "."


def problem(g):
    """A word problem with one addition or subtraction."""
    op = g.pick("+-")
    while True:
        a, b = (g.num(1, 12), g.num(1, 12)) if g.chance(0.7) else (g.num(1, 40), g.num(1, 40))
        if op == "-" and a < b:
            a, b = b, a
        if a != b and allowed(g, a, op, b):
            break
    name, sex = g.name()
    other, _ = g.name()
    item = g.topic(lx.COUNTABLE)
    many = lx.plural(item)
    c = dict(
        n=name,
        o=other,
        a=a,
        b=b,
        i=many,
        ia=many if a != 1 else item,
        ib=many if b != 1 else item,
        he="she" if sex == "f" else "he",
    )
    if op == "+":
        text = g.pat(
            [
                "{n} has {a} {ia}. {o} gives {n} {b} more. how many {i} does {n} have now",
                "{n} has {a} {ia} and [buys|finds|gets] {b} more. how many {i} does {he} have",
                "there are {a} {ia} on the table. {n} puts {b} more there. how many are there now",
                "{n} has {a} {ia} and {o} has {b} {ib}. how many {i} do they have together",
                "if I have {a} {ia} and you give me {b} more, how many do I have",
            ],
            ["{a} {ia} lie in a basket, and {n} adds {b}. what is the total"],
        )
        total = a + b
    else:
        text = g.pat(
            [
                "{n} has {a} {ia} and [loses|gives away|sells] {b}. how many {i} are left",
                "{n} had {a} {ia}. {he} gave {b} to {o}. how many {i} does {n} have now",
                "there were {a} {ia} on the table. {n} took {b} away. how many are left",
                "if I have {a} {ia} and [lose|give away|use] {b}, how many do I have left",
            ],
            ["out of {a} {ia}, {b} went missing at {n}'s house. what remains"],
        )
        total = a - b
    word = many if total != 1 else item
    who = (
        "you have"
        if text.startswith("if I")
        else (
            "they have"
            if "together" in text
            else (
                ("there is" if total == 1 else "there are")
                if text.startswith("there")
                else f"{name} has"
            )
        )
    )
    left = " left" if op == "-" else " together" if who == "they have" else ""
    first = f"{a} {op} {b} is {total}"
    answer = g.pick(
        [
            f"{first}, so {who} {total} {word}{left}.",
            f"{who} {total} {word}{left}.",
            f"{first}. {who} {total} {word}{left}.",
        ]
    )
    return g.say(text, c) + "?", g.say(answer)


KINDS = [arithmetic] * 11 + [division] + [counting] * 6 + [comparison] * 3 + [problem] * 3


def pair(g):
    """One question and its answer."""
    return g.pick(KINDS)(g)


def make(g):
    """One conversation about numbers; now and then plain text."""
    question, answer = pair(g)
    if g.chance(0.03):
        return f"Question: {question}\nAnswer: {answer}"
    if g.chance(0.02):
        a = g.num(1, 40)
        return ", ".join(map(str, range(a, a + g.num(5, 25))))
    return turns((question, answer))
