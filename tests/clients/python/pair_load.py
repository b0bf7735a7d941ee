"""Stock openai clients at work while servers die: counts what their users would have noticed.

Runs until its standard input ends, then prints one line of JSON: requests answered, requests that
failed before anything of them was streamed (with their errors), and streams that broke.

Invariant: the clients are as the package makes them, two retries included.
"""

import json
import os
import sys
import threading

import openai

BASE_URL = os.environ["HOTSPARE_TEST_URL"]
NUM_THREADS = int(os.environ.get("HOTSPARE_TEST_THREADS", "6"))
MESSAGES = [{"role": "user", "content": "Tell me a story."}]

over = threading.Event()
lock = threading.Lock()
told = {"answered": 0, "failed": [], "broken": 0}


def whole(api, model):
    answer = api.chat.completions.create(model=model, messages=MESSAGES, max_tokens=16)
    if answer.choices[0].finish_reason is None:
        raise RuntimeError("the answer has no finish reason")


def streamed(api, model, note):
    finish = None
    stream = api.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=32, stream=True, temperature=0
    )
    for chunk in stream:
        note()
        finish = chunk.choices[0].finish_reason or finish
    if finish is None:
        raise RuntimeError("the stream ended without a finish reason")


def work(index):
    api = openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key="none")
    model = None
    while not over.is_set():
        begun = []
        try:
            model = model or api.models.list().data[0].id
            if index % 2:
                whole(api, model)
            else:
                streamed(api, model, lambda: begun.append(True))
            with lock:
                told["answered"] += 1
        except Exception as error:  # noqa: BLE001: whatever a user would have seen
            with lock:
                if begun:
                    told["broken"] += 1
                else:
                    told["failed"].append(f"{type(error).__name__}: {error}")


threads = [threading.Thread(target=work, args=(index,)) for index in range(NUM_THREADS)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join(120)
print(json.dumps(told))
