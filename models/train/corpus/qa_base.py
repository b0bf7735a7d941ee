"""What the question-and-answer modules share."""

from .base import mend
from .noise import polish


def a(word):
    """The word with its indefinite article."""
    return mend("a " + word)


def reply(g, question, answer, **ctx):
    """A finished (question, answer) pair from two templates."""
    return polish(g, g.fill(question, ctx)), g.say(answer, ctx)
