"""What training never sees: names, topics, and (beside each grammar) sentence patterns.

`NAMES` and `TOPICS` are whole lists that only the evaluation splits use. Held-out sentence
patterns stand as the second argument of each `Gen.pat(train, held)` call; held-out arithmetic
pairs and counting ranges are those for which `base.held_number` is true.
"""

NAMES = {
    "f": "Olivia Matilda Ingrid Beatrix Rosalind Camille Thelma Nadia Saoirse Pearl".split(),
    "m": "Oliver Gustav Rafael Dexter Walter Casper Nikolai Mateo Rupert Elliot".split(),
}

TOPICS = frozenset(
    """badger heron otter lynx camel flamingo hamster beetle
violin lantern balloon compass wagon teapot umbrella
plumber librarian sailor dentist
waterfall orchard volcano windmill
honesty patience
""".split()
)
