"""Questions about Hotspare itself, answered as the design has it."""

from .base import turns
from .hotspare_pair import PAIR
from .hotspare_use import USE
from .noise import polish

# Each intent: questions, held-out questions, answers.
INTENTS = PAIR + USE


def pair(g):
    """One question and its answer."""
    asks, held, answers = INTENTS[0] if g.chance(0.12) else g.pick(INTENTS)
    return polish(g, g.fill(g.pat(asks, held))), g.say(g.pick(answers))


def make(g):
    """One conversation about Hotspare, of one to three turns."""
    return turns(*(pair(g) for _ in range(g.pick([1, 1, 1, 2, 3]))))
