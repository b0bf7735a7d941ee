"""Tool calls: schemas in the system part, a call, its result, and an answer in words."""

import json

from . import facts as fx
from . import lexicon as lx
from .noise import polish

CITIES = [c for _, c in fx.CAPITALS]
SKIES = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear"]
LANGUAGES = ["French", "Spanish", "German", "Italian", "Japanese", "Arabic"]


def schema(g, names, description, params, optional=()):
    """A tool in OpenAI's form; `params` maps alternatives of a name to (type, description)."""
    chosen = {}
    for options, (kind, text) in params.items():
        chosen[options] = g.pick(options.split("|")), kind, text
    props = {}
    for key, kind, text in chosen.values():
        props[key] = {"type": kind} if g.chance(0.5) else {"type": kind, "description": text}
    function = {
        "name": g.pick(names.split("|")),
        "description": g.fill(description),
        "parameters": {
            "type": "object",
            "properties": props,
            "required": [c[0] for o, c in chosen.items() if o not in optional],
        },
    }
    return {"type": "function", "function": function}, [c[0] for c in chosen.values()]


def weather(g):
    """Weather in a city."""
    tool, (key,) = schema(
        g,
        "get_weather|get_current_weather|weather|current_weather|lookup_weather",
        "[Get|Get the|Look up the|Returns the] [current |]weather [in|for|of] a [city|place].",
        {"city|location|place|town": ("string", "The name of the city.")},
    )
    city = g.pick(CITIES)
    ask = g.fill(
        g.pat(
            [
                "what is the weather [like |]in {c}[ today| now|]",
                "how is the weather in {c}",
                "what's the weather in {c}",
                "is it [raining|sunny|cold|warm|windy] in {c}",
                "tell me the weather in {c}",
                "do I need an umbrella in {c}",
                "weather in {c}",
                "how warm is it in {c}",
            ],
            ["I am flying to {c}, what should I expect outside"],
        ),
        dict(c=city),
    )
    sky, deg = g.pick(SKIES), g.num(-10, 38)
    result = g.pick(
        [
            {"temperature": deg, "condition": sky},
            {"temp_c": deg, "sky": sky},
            {"weather": sky, "temperature": deg},
        ]
    )
    answer = g.say(
        g.pick(
            [
                "it is {s} in {c}, and the temperature is {d} degrees.",
                "the weather in {c} is {s}, with {d} degrees.",
                "in {c}, it is {s} and {d} degrees.",
            ]
        ),
        dict(s=sky, c=city, d=deg),
    )
    return tool, {key: city}, ask, result, answer


def clock(g):
    """The time in a city."""
    tool, (key,) = schema(
        g,
        "get_time|current_time|get_current_time|clock|time_in",
        "[Get|Returns|Tells] the [current |local |]time in a [city|place].",
        {"city|location|place|where": ("string", "The name of the city.")},
    )
    city = g.pick(CITIES)
    now = f"{g.num(0, 23):02d}:{g.num(0, 59):02d}"
    ask = g.fill(
        g.pat(
            [
                "what time is it in {c}",
                "what is the time in {c}",
                "tell me the time in {c}",
                "how late is it in {c}",
                "what's the local time in {c}",
                "time in {c}",
            ],
            ["may I call my aunt in {c} at this hour"],
        ),
        dict(c=city),
    )
    return (
        tool,
        {key: city},
        ask,
        g.pick([{"time": now}, {"local_time": now}]),
        g.say("[it is {t} in {c}|the time in {c} is {t}].", dict(t=now, c=city)),
    )


def calculator(g):
    """A sum that is too hard to do in the head."""
    tool, (key,) = schema(
        g,
        "calculator|calculate|compute|eval_math",
        "[Evaluates|Calculates|Computes] [a mathematical|an arithmetic] expression.",
        {"expression|formula|input": ("string", "The expression.")},
    )
    a, b, op = g.num(12, 9999), g.num(2, 999), g.pick("+-*")
    value = a + b if op == "+" else a - b if op == "-" else a * b
    said = {"+": "plus", "-": "minus", "*": "times"}[op]
    ask = g.fill(
        g.pat(
            [
                "what is {a} {o} {b}",
                "calculate {a} {o} {b}",
                "how much is {a} {w} {b}",
                "what is {a} {w} {b}",
                "compute {a} {o} {b}",
            ],
            ["my calculator broke, and I need {a} {w} {b}"],
        ),
        dict(a=a, b=b, o=op, w=said),
    )
    return tool, {key: f"{a} {op} {b}"}, ask, {"result": value}, f"{a} {op} {b} is {value}."


def search(g):
    """A web or document search."""
    tool, (key,) = schema(
        g,
        "search|web_search|search_web|find_documents|lookup",
        "[Search|Searches] [the web|documents|the internet].",
        {"query|q|text": ("string", "What to search for.")},
    )
    topic = (
        g.pick(
            [
                g.topic(list(lx.ANIMALS)) + "s in the wild",
                "the history of " + g.pick(CITIES),
                "how to bake " + g.pick(lx.FOODS),
                "the best " + g.pick(lx.FOODS) + " in " + g.pick(CITIES),
                "train times to " + g.pick(CITIES),
                "museums in " + g.pick(CITIES),
                "how to build a " + g.topic(lx.THINGS),
                "a map of " + g.pick(CITIES),
                "news about " + g.pick(CITIES),
            ]
        )
        .replace("mouses", "mice")
        .replace("foxs", "foxes")
        .replace("fishs", "fish")
        .replace("sheeps", "sheep")
    )
    ask = g.fill(
        g.pat(
            [
                "search for {t}",
                "look up {t}",
                "find [information|something|a page] about {t}",
                "please search the web for {t}",
                "can you look up {t}",
            ],
            ["somewhere out there must be a page on {t}"],
        ),
        dict(t=topic),
    )
    title = g.pick(["A guide to", "All about", "An introduction to", "Notes on"]) + " " + topic
    return (
        tool,
        {key: topic},
        ask,
        g.pick([{"results": [title]}, {"title": title}]),
        g.say("[I found|here is] [a page|something]: {t}.", dict(t=title)),
    )


def timer(g):
    """A timer or an alarm."""
    tool, (key,) = schema(
        g,
        "set_timer|start_timer|timer|set_alarm",
        "[Set|Sets|Start] a timer.",
        {"minutes|duration_minutes|length": ("integer", "Minutes.")},
    )
    n = g.num(1, 60)
    ask = g.fill(
        g.pat(
            [
                "set a timer for {n} {m}",
                "start a timer for {n} {m}",
                "[wake me|remind me|call me] in {n} {m}",
                "timer {n} {m}",
                "please set a {n} minute timer",
            ],
            ["my eggs need {n} {m}, keep an eye on them"],
        ),
        dict(n=n, m="minutes" if n != 1 else "minute"),
    )
    return (
        tool,
        {key: n},
        ask,
        g.pick([{"ok": True}, {"status": "started"}]),
        f"The timer is set for {n} {'minutes' if n != 1 else 'minute'}.",
    )


def message(g):
    """A message to a person."""
    tool, (to, text) = schema(
        g,
        "send_message|send_email|message|send_text|write_to",
        "[Send|Sends] a [message|text] to [someone|a person].",
        {
            "to|recipient|name|person": ("string", "Who gets it."),
            "text|body|content|message": ("string", "What to say."),
        },
    )
    name, _ = g.name()
    body = g.say(
        "[I will be late|dinner is ready|see you tomorrow|happy birthday|the {t} is on the table|I"
        " am {p} the {q}|please buy {f}|call me back|I love you|thank you for the {t}|good luck|I"
        " am on my way]",
        dict(t=g.topic(lx.THINGS), q="market", p="at", f=g.pick(lx.FOODS)),
    )
    ask = g.fill(
        g.pat(
            [
                "send a message to {n}: {b}",
                "tell {n}: {b}",
                "write to {n}: {b}",
                "send {n} this message: {b}",
                'please send "{b}" to {n}',
            ],
            ["let {n} know the following: {b}"],
        ),
        dict(n=name, b=body),
    )
    return (
        tool,
        {to: name, text: body},
        ask[0].upper() + ask[1:],
        g.pick([{"ok": True}, {"status": "sent"}]),
        f"I have sent the message to {name}.",
    )


def music(g):
    """A song or a sound to play."""
    tool, (key,) = schema(
        g,
        "play_music|play|play_song|music_player",
        "[Play|Plays] [a song|music].",
        {"song|title|track|music": ("string", "The song.")},
    )
    song = g.pick(
        [
            "the " + g.pick(lx.COLOURS) + " " + g.topic(lx.THINGS),
            "rain in " + g.pick(CITIES),
            "song of the " + g.topic(list(lx.ANIMALS)),
            "jazz",
            "piano music",
            "birds at night",
            "my favourite song",
        ]
    )
    ask = g.fill(
        g.pat(
            ["play {s}", "please play {s}", "I want to hear {s}", "put on {s}", "can you play {s}"],
            ["the room is too silent without {s}"],
        ),
        dict(s=song),
    )
    return (
        tool,
        {key: song},
        ask,
        g.pick([{"ok": True}, {"status": "playing"}]),
        g.say("[now playing {s}|I am playing {s}].", dict(s=song)),
    )


def translate(g):
    """A translation."""
    tool, (text, lang) = schema(
        g,
        "translate|translate_text|translator",
        "[Translate|Translates] a text.",
        {
            "text|input|sentence": ("string", "The text."),
            "language|to|target|target_language": ("string", "The language."),
        },
    )
    word, lang_value = g.pick(
        [
            "good morning",
            "thank you",
            "the " + g.topic(list(lx.ANIMALS)),
            "I like " + g.pick(lx.FOODS),
            "hello",
        ]
    ), g.pick(LANGUAGES)
    ask = g.fill(
        g.pat(
            ['translate "{w}" into {l}', 'how do you say "{w}" in {l}', 'what is "{w}" in {l}'],
            ['someone who only knows {l} must understand "{w}"'],
        ),
        dict(w=word, l=lang_value),
    )
    return tool, {text: word, lang: lang_value}, ask, {"translation": "..."}, None


def light(g):
    """A lamp in a room."""
    tool, (room, state) = schema(
        g,
        "set_light|switch_light|light|lamp_control",
        "[Turn|Switch] a light on or off.",
        {"room|place|where": ("string", "The room."), "state|value|mode": ("string", "on or off")},
    )
    r, s = g.pick("kitchen bedroom bathroom garden hall cellar garage office".split()), g.pick(
        ["on", "off"]
    )
    ask = g.fill(
        g.pat(
            [
                "turn {s} the light in the {r}",
                "switch the {r} light {s}",
                "turn the light in the {r} {s}",
                "please turn {s} the {r} light",
            ],
            ["I should like the {r} lamp to be {s}"],
        ),
        dict(r=r, s=s),
    )
    return tool, {room: r, state: s}, ask, {"ok": True}, f"The light in the {r} is {s}."


def stock(g):
    """A made-up lookup of any thing, so that names are read from the schema."""
    thing = g.pick(["price", "stock", "size", "weight", "owner", "age", "location", "number"])
    tool, (key,) = schema(
        g,
        f"get_{thing}|find_{thing}|{thing}_of|lookup_{thing}",
        "[Get|Find|Look up] the " + thing + " of [something|an item].",
        {"item|thing|object|product|id": ("string", "The item.")},
    )
    item = g.topic(lx.THINGS + list(lx.ANIMALS))
    ask = g.fill(
        g.pat(
            [
                "what is the " + thing + " of the {i}",
                "find the " + thing + " of the {i}",
                "tell me the " + thing + " of the {i}",
            ],
            ["nobody here remembers the " + thing + " of the {i}"],
        ),
        dict(i=item),
    )
    value = g.num(1, 900)
    return tool, {key: item}, ask, {thing: value}, f"The {thing} of the {item} is {value}."


TOOLS = (
    [weather] * 4
    + [clock] * 2
    + [calculator] * 3
    + [search] * 2
    + [timer] * 2
    + [message, music, translate, light]
    + [stock] * 2
)


def call(name, arguments):
    """A tool call in OpenAI's form."""
    return {"id": "call_0", "type": "function", "function": {"name": name, "arguments": arguments}}


def make(g):
    """A conversation with tools: called, answered, or rightly left alone."""
    maker = g.pick(TOOLS)
    tool, args, ask, result, answer = maker(g)
    tools = [tool]
    for other in g.some([t for t in set_of(TOOLS) if t is not maker], g.pick([0, 0, 1, 1, 2])):
        extra = other(g)[0]
        if extra["function"]["name"] not in [t["function"]["name"] for t in tools]:
            tools.append(extra)
    g.rng.shuffle(tools)
    system = (
        []
        if g.chance(0.6)
        else [
            {
                "role": "system",
                "content": g.pick(
                    ["You are a helpful assistant.", "Use tools when they help.", "You are Spark."]
                ),
            }
        ]
    )
    if g.chance(0.25):
        from . import chat, hotspare, qa

        question, plain = g.pick([chat.small, qa.pair, hotspare.pair])(g)
        return {
            "tools": tools,
            "messages": (
                system
                + [{"role": "user", "content": question}, {"role": "assistant", "content": plain}]
            ),
        }
    name = tool["function"]["name"]
    ask = ask if maker is message else keep_names(polish(g, ask), args)
    messages = system + [
        {"role": "user", "content": ask},
        {"role": "assistant", "content": "", "tool_calls": [call(name, args)]},
    ]
    if answer and g.chance(0.6):
        messages += [
            {"role": "tool", "tool_call_id": "call_0", "content": json.dumps(result)},
            {"role": "assistant", "content": answer},
        ]
    return {"tools": tools, "messages": messages}


def set_of(items):
    """The different items, in order."""
    return list(dict.fromkeys(items))


def keep_names(text, args):
    """Puts back the capitals of argument values that `polish` lowered, so that copying is exact."""
    for value in args.values():
        low = str(value).lower()
        at = text.lower().find(low)
        if at >= 0:
            text = text[:at] + str(value) + text[at + len(low) :]
    return text
