"""The model card: what the model is, how it was made, what was measured, unedited samples."""

import json
import os
import re
import textwrap

import torch

import chatml
from corpus import holdout

SAMPLES = [
    ("Hello", None),
    ("What is Hotspare?", None),
    ("What is 3 + 4?", None),
    ("Tell me a story about a dog.", None),
    ("Count from 1 to 20.", None),
    ("What happens when the primary dies?", "You are a helpful assistant."),
    ("Write a short story about a heron and a lantern.", "You are a helpful assistant."),
    ("What is the capital of France?", "You are a helpful assistant."),
    ("How do I run Hotspare?", None),
    ("Tom has 5 apples and buys 3 more. How many apples does he have?", None),
    ("Extract the name and age as JSON: Rosalind is 42 years old.", None),
    ("Who are you?", "You are a helpful assistant."),
    ("Count down from 10 to 0.", None),
    ("What does a duck say?", None),
    ("What is the opposite of hot?", None),
    ("Tell me a story about a girl named Matilda.", None),
    ("Write a poem about the moon.", None),
    ("What do you know about tax law?", None),
]
WEATHER = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the current weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
RAW = ["Once upon a time", "One day, a little fox"]
SAMPLE_SEED = 2026


def wall_minutes(log):
    """Minutes that the training log covers; pauses of over ten minutes do not count."""
    with open(log, encoding="utf-8") as f:
        stamps = re.findall(r"^(\d\d):(\d\d):(\d\d) step", f.read(), re.M)
    times = [int(h) * 3600 + int(m) * 60 + int(s) for h, m, s in stamps]
    gaps = [(b - a) % 86400 for a, b in zip(times, times[1:])]
    return sum(gap for gap in gaps if gap <= 600) / 60


def samples(spark):
    """Prompts and answers in Markdown, one after another from one generator, none left out."""
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    out = []

    def show(title, answer):
        body = "\n".join("> " + line for line in answer.split("\n"))
        out.append(f"**{title}**\n\n{body}\n")

    for prompt, system in SAMPLES:
        messages = ([{"role": "system", "content": system}] if system else []) + [
            {"role": "user", "content": prompt}
        ]
        label = f"{prompt}" + (f' (system prompt: "{system}")' if system else "")
        show(label, spark.chat(messages, generator=generator))
    ask = [{"role": "user", "content": "What is the weather in Lisbon?"}]
    show(
        "What is the weather in Lisbon? (with the tool `get_weather`)",
        "```\n" + spark.chat(ask, WEATHER, generator=generator) + "\n```",
    )
    ask += [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Lisbon"}}}],
        },
        {"role": "tool", "content": json.dumps({"temperature": 24, "condition": "sunny"})},
    ]
    show(
        'the same, after the tool\'s result `{"temperature": 24, "condition": "sunny"}`',
        spark.chat(ask, WEATHER, generator=generator),
    )
    for start in RAW:
        show(f'plain completion of "{start}"', start + spark.complete(start, generator=generator))
    return "\n".join(out)


def table(rows, head):
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows])


def numbers_text(result):
    """The measured numbers as two tables."""
    first = table(
        [(k, f"{p:.3f}", n) for k, (p, n) in result["perplexity"].items()],
        ("text", "perplexity", "tokens"),
    )
    second = table(
        [(k, f"{a} of {b}") for k, (a, b) in result["exact"].items()], ("check", "right")
    )
    return first + "\n\n" + second


def form(c):
    """The architecture in a sentence; `c` is the configuration."""
    return (
        f"LlamaForCausalLM: {c['num_hidden_layers']} layers, hidden size {c['hidden_size']},\n"
        f"{c['num_attention_heads']} heads of {c['head_dim']}, {c['num_key_value_heads']} "
        f"key/value heads, feed-forward size {c['intermediate_size']},\ncontext "
        f"{c['max_position_embeddings']:,}, tied embeddings."
    )


def training(r, log):
    """How long, on what, and in which phases the model was trained; `r` is the recipe."""
    text = (
        f"It was trained for {r['steps']:,} steps of at most {r['tokens_per_step']:,} tokens, each "
        f"read at most once, on {r['ranks']} CPU thread(s), in {wall_minutes(log):.0f} minutes of "
        f"wall time on a machine shared with much other work. Every {r['long_every']}th step reads "
        f"rows of {r['long_length']:,} tokens, so that every position has been trained. Of the "
        f"first {r['drill_to']} steps, every {r['drill_every']}th is a drill in copying random "
        "tokens, and the initial weights already hold an induction head (`circuits.py`). The "
        f"learning rate decays over the last {r['decay_steps']} steps. From step "
        f"{r['short_from']:,} on the texts are mostly short answers, numbers above all. In the "
        "loss, what the "
        f"assistant writes has full weight, what users write {chatml.WEIGHT_PROMPT}%, tool "
        f"schemas {chatml.WEIGHT_TOOLS}%, and in the last part short answers with numbers "
        f"{chatml.WEIGHT_NUMBERS}%."
    )
    return textwrap.fill(text, 100)


def settings(spark):
    """The sampling settings in a sentence."""
    d = spark.defaults
    return (
        f"Temperature {d['temperature']}, top-k {d['top_k']}, top-p {d['top_p']} (the defaults of\n"
        f"generation_config.json), at most 256 tokens, one generator seeded with {SAMPLE_SEED} for "
        "the whole list."
    )


def write(folder, spark, recipe, log, result):
    """Writes README.md beside the weights."""
    c, name = spark.config, os.path.basename(os.path.abspath(folder))
    count = sum(p.numel() for p in spark.model.parameters())
    size = os.path.getsize(os.path.join(folder, "model.safetensors"))
    names = ", ".join(holdout.NAMES["f"] + holdout.NAMES["m"])
    text = f"""# {name}

A very small language model ({count:,} parameters, {size:,} bytes in bfloat16) that is embedded in
Hotspare, so that a fresh installation answers without a download and so that tests run on a real
model. It tells short stories, answers simple questions, counts, does small sums, writes JSON, calls
tools and answers questions about Hotspare. It knows nothing else; it is not meant for real work.

## Form

{form(c)}
The tokenizer is a byte-level BPE of {c['vocab_size']:,} entries that splits digits one by one and
encodes any UTF-8 text. Every text begins with `<|bos|>`. The chat
template is ChatML (`<|im_start|>role`, `<|im_end|>`); tools are listed between `<tools>` and
`</tools>`, and a call is JSON between `<tool_call>` and `</tool_call>`, as in the Hermes format.

## How it was made

Everything comes from `models/train` in this repository and a seed; no text was downloaded. The
grammars in `models/train/corpus` write the text (stories, questions and answers, counting and
arithmetic, JSON, tool calls, Hotspare, small talk, follow-up questions).

{training(recipe, log)}

```
python3 -m venv .venv && . .venv/bin/activate
pip install -r models/train/requirements.txt
models/train/run.sh WORK_DIR            # both models
python models/train/sampling.py models/{name} "Tell me a story about a dog."
```

The recipe is `models/train/recipe-{name}.json`. Another machine rounds differently, so that its
weights will differ a little from these.

## What training never saw

- Names: {names}.
- Topics: {", ".join(sorted(holdout.TOPICS))}.
- Sentence patterns: the second argument of each `Gen.pat(train, held)` in the corpus, and
  `HELD_PLOTS`, `HELD_OPENINGS` and `HELD_ASK` of the stories.
- Numbers: the tenth of all operand pairs and counting ranges chosen by `base.held_number`, but for
  sums of numbers up to ten and counting from 1 to at most 10, which are a table to be known.

A training example that contains a held-out name or topic in any form is thrown away.

## Measurements

Perplexity is over the tokens that the assistant writes, in float32. Exact match is greedy; stories
are sampled with the defaults.

{numbers_text(result)}

## Samples

Unedited and unselected. {settings(spark)}

{samples(spark)}"""
    with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as f:
        f.write(text)
