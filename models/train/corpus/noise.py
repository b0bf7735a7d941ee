"""How people type: capitals or none, a final mark or none, a greeting in front."""

QUESTION = (
    "what",
    "who",
    "where",
    "when",
    "why",
    "how",
    "which",
    "can",
    "could",
    "do",
    "does",
    "is",
    "are",
    "may",
    "in which",
    "on which",
    "at what",
    "will",
    "would",
    "did",
    "have",
    "has",
    "am",
    "should",
    "whose",
)


def polish(g, text, question=None):
    """Finishes a request the way a person might have typed it."""
    text = text.strip()
    bare = text.rstrip(".?!")
    if question is None:
        question = bare.lower().startswith(QUESTION)
    mark = "?" if question or text.endswith("?") else "."
    roll = g.rng.random()
    if roll < 0.10:
        return bare.lower()
    if roll < 0.16:
        return bare[0].upper() + bare[1:]
    if roll < 0.20:
        return bare.lower() + mark
    if roll < 0.24:
        opener = g.pick(["Hi, ", "Hello, ", "Hey, ", "Please, ", "OK, ", "Hello! ", "Hi! "])
        low = bare if bare.startswith("I ") else bare[0].lower() + bare[1:]
        if opener.endswith("! "):
            low = bare[0].upper() + bare[1:]
        return opener + low + mark
    if roll < 0.26 and not question:
        mark = "!"
    return bare[0].upper() + bare[1:] + mark
