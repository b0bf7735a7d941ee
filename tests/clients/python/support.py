"""The server under test, and what the suites ask of it beside the OpenAI API.

Invariant: every wait is bounded, and no client retries: a failed request fails its test.
"""

import json
import os
import time
import urllib.request

import openai

BASE_URL = os.environ["HOTSPARE_TEST_URL"]
API_KEY = os.environ["HOTSPARE_TEST_KEY"]
TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 30.0


def client(**changes):
    """A synchronous client of the server."""
    options = {"api_key": API_KEY, "timeout": TIMEOUT_S, "max_retries": 0, **changes}
    return openai.OpenAI(base_url=f"{BASE_URL}/v1", **options)


def async_client():
    """An asynchronous client of the server."""
    return openai.AsyncOpenAI(
        base_url=f"{BASE_URL}/v1", api_key=API_KEY, timeout=TIMEOUT_S, max_retries=0
    )


def get(path):
    """The body of a GET that needs no key."""
    with urllib.request.urlopen(BASE_URL + path, timeout=TIMEOUT_S) as answer:
        return answer.read().decode()


def post(path, body):
    """The JSON answer to a POST."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {API_KEY}"}
    request = urllib.request.Request(BASE_URL + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return json.loads(answer.read())


def main_engine():
    """The serving engine's entry in /ha/status."""
    engines = json.loads(get("/ha/status"))["engines"]
    return next(engine for engine in engines if engine["name"] == "main")


def metric(name, **labels):
    """The sum of a metric's samples that carry these labels."""
    total = 0.0
    for line in get("/metrics").splitlines():
        is_sample = line.startswith((name + "{", name + " "))
        if is_sample and all(f'{key}="{value}"' in line for key, value in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return total


def wait_for(what, condition):
    """Waits until the condition holds, for half a minute at most."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {SETTLE_TIMEOUT_S} s: {what}")
        time.sleep(0.02)


def wait_until_idle():
    """Waits until no sequence runs or waits."""

    def is_idle():
        engine = main_engine()
        return engine["running"] == 0 and engine["waiting"] == 0

    wait_for("no sequence runs or waits", is_idle)
