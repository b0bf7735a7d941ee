"""Trains the byte-level BPE tokenizer shared by both models, and writes its two files.

Usage: make_tokenizer.py OUT_DIR [OUT_DIR ...]
"""

import json
import os
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import chatml
from corpus import build
from corpus.base import Gen

VOCAB_SIZE = 2048
NUM_EXAMPLES = 60_000
SEED = 11
# Ordinary English that the grammars lack, so that users' words are not spelt out in letters.
COMMON = """\
the of and to in is you that it he was for on are as with his they at be this have from or
one had by word but not what all were we when your can said there use an each which she do how \
their
if will up other about out many then them these so some her would make like him into time has \
look two
more write go see number no way could people my than first water been call who oil its now \
find long
down day did get come made may part over new sound take only little work know place year live \
me back
give most very after thing our just name good sentence man think say great where help through \
much
before line right too mean old any same tell boy follow came want show also around form three \
small
set put end does another well large must big even such because turn here why ask went men read \
need
land different home us move try kind hand picture again change off play spell air away animal \
house
point page letter mother answer found study still learn should world please could system model \
error
request response server token stream prompt message function string value data file code test \
run"""


def texts():
    """The training text, rendered as the model will read it."""
    g, renderer = Gen(SEED), chatml.Renderer()
    for _ in range(NUM_EXAMPLES):
        yield "".join(text for text, _ in renderer.pieces(build.example(g)))
    for _ in range(300):
        yield COMMON


def train():
    """The trained tokenizer."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(chatml.MARKERS),
        min_frequency=2,
        special_tokens=chatml.SPECIALS,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tok.train_from_iterator(texts(), trainer)
    tok.add_tokens([AddedToken(m, normalized=False, special=False) for m in chatml.MARKERS])
    tok.post_processor = processors.TemplateProcessing(
        single=f"{chatml.BOS} $A",
        pair=f"{chatml.BOS} $A {chatml.BOS} $B",
        special_tokens=[(chatml.BOS, tok.token_to_id(chatml.BOS))],
    )
    assert tok.get_vocab_size() == VOCAB_SIZE, tok.get_vocab_size()
    return tok


def check(tok):
    """Any UTF-8 text must survive a round trip, and digits must stand alone."""
    for text in [
        "",
        " ",
        "Hello  world\n\n\tend ",
        "naïve café 東京 🦀 \u0301",
        "x = 1234;\r\n",
        "a\u00a0b",
        "\u200d\ufeff",
        "<tool_call>\n{}\n</tool_call>",
        "".join(map(chr, range(1, 0x300))),
    ]:
        ids = tok.encode(text).ids
        assert tok.decode(ids, skip_special_tokens=True) == text, repr(text)
    assert len(tok.encode("1234", add_special_tokens=False).ids) == 4


def main():
    """Trains, checks and writes."""
    tok = train()
    check(tok)
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tok.token_to_id(t)): {
                "content": t,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": t in chatml.SPECIALS,
            }
            for t in chatml.SPECIALS + chatml.MARKERS
        },
        "bos_token": chatml.BOS,
        "chat_template": chatml.template_text(),
        "clean_up_tokenization_spaces": False,
        "eos_token": chatml.END,
        "model_max_length": 2048,
        "pad_token": "<|pad|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    for out in sys.argv[1:]:
        os.makedirs(out, exist_ok=True)
        tok.save(os.path.join(out, "tokenizer.json"))
        with open(os.path.join(out, "tokenizer_config.json"), "w", encoding="utf-8") as f:
            json.dump(config, f, indent=2, ensure_ascii=False)
            f.write("\n")


if __name__ == "__main__":
    main()
