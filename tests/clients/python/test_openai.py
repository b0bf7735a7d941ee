"""The openai Python package against a running server.

Run by ../run.sh. Nothing here depends on what the model says, only on what an OpenAI client may rely on.
"""

import asyncio
import unittest

import openai
from support import API_KEY, async_client, client, get, metric, post, wait_for, wait_until_idle

MESSAGES = [{"role": "user", "content": "Tell me a short story about a dog."}]
PROMPT = "Once upon a time"
MANY_TOKENS = 1500


def joined(chunks, index=0):
    """The text of one choice of a chat stream."""
    parts = []
    for chunk in chunks:
        for choice in chunk.choices:
            if choice.index == index and choice.delta.content:
                parts.append(choice.delta.content)
    return "".join(parts)


class Models(unittest.TestCase):
    def test_list_and_retrieve(self):
        with client() as api:
            models = list(api.models.list())
            self.assertGreaterEqual(len(models), 1)
            model = api.models.retrieve(models[0].id)
        self.assertEqual(model.id, models[0].id)
        self.assertEqual(model.object, "model")
        self.assertGreater(model.model_extra["max_model_len"], 0)

    def test_unknown_model(self):
        with client() as api, self.assertRaises(openai.NotFoundError):
            api.models.retrieve("no-such-model")


class WithModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.api = client()
        cls.model = cls.api.models.list().data[0].id
        cls.max_model_len = cls.api.models.list().data[0].model_extra["max_model_len"]

    @classmethod
    def tearDownClass(cls):
        cls.api.close()

    def chat(self, **changes):
        options = {"model": self.model, "messages": MESSAGES, "max_tokens": 24, "seed": 7}
        return self.api.chat.completions.create(**{**options, **changes})

    def complete(self, **changes):
        options = {"model": self.model, "prompt": PROMPT, "max_tokens": 24, "seed": 7}
        return self.api.completions.create(**{**options, **changes})


class Chat(WithModel):
    def test_answer(self):
        answer = self.chat()
        self.assertTrue(answer.id.startswith("chatcmpl-"))
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.model, self.model)
        [choice] = answer.choices
        self.assertEqual(choice.message.role, "assistant")
        self.assertTrue(choice.message.content)
        self.assertIn(choice.finish_reason, ("stop", "length"))
        usage = answer.usage
        self.assertGreater(usage.prompt_tokens, 0)
        self.assertTrue(0 < usage.completion_tokens <= 24)
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)

    def test_stream_equals_answer(self):
        answer = self.chat(temperature=1.0)
        chunks = list(
            self.chat(temperature=1.0, stream=True, stream_options={"include_usage": True})
        )
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)
        self.assertTrue(all(chunk.object == "chat.completion.chunk" for chunk in chunks))
        first = chunks[0].choices[0].delta
        self.assertEqual((first.role, first.content), ("assistant", ""))
        self.assertEqual(joined(chunks), answer.choices[0].message.content)
        reasons = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
        self.assertEqual(reasons, [answer.choices[0].finish_reason])
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, answer.usage.completion_tokens)
        self.assertEqual(chunks[-1].usage.prompt_tokens, answer.usage.prompt_tokens)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_stream_without_usage(self):
        chunks = list(self.chat(stream=True))
        self.assertTrue(all(chunk.usage is None and chunk.choices for chunk in chunks))

    def test_stream_helper(self):
        options = {"model": self.model, "messages": MESSAGES, "max_tokens": 24, "seed": 7}
        with self.api.chat.completions.stream(**options) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
        self.assertEqual("".join(deltas), self.chat().choices[0].message.content)

    def test_system_prompt_is_read(self):
        system = {"role": "system", "content": "Answer in one short sentence."}
        without, with_system = self.chat(), self.chat(messages=[system, *MESSAGES])
        self.assertGreater(with_system.usage.prompt_tokens, without.usage.prompt_tokens)
        self.assertTrue(with_system.choices[0].message.content)

    def test_non_ascii(self):
        text = "Größe 東京 😀 ½"
        answer = self.chat(messages=[{"role": "user", "content": text}])
        self.assertTrue(answer.choices[0].message.content)
        body = {"model": self.model, "messages": [{"role": "user", "content": text}]}
        tokens = post("/tokenize", body)["tokens"]
        self.assertIn(text, post("/detokenize", {"model": self.model, "tokens": tokens})["prompt"])
        self.assertEqual(answer.usage.prompt_tokens, len(tokens))

    def test_content_in_parts(self):
        parts = [{"type": "text", "text": MESSAGES[0]["content"]}]
        answer = self.chat(messages=[{"role": "user", "content": parts}])
        self.assertEqual(answer.choices[0].message.content, self.chat().choices[0].message.content)

    def test_seed(self):
        texts = [
            self.chat(seed=seed, temperature=1.0).choices[0].message.content
            for seed in (1, 1, 2, 3, 4)
        ]
        self.assertEqual(texts[0], texts[1])
        self.assertGreater(len(set(texts)), 1)

    def test_two_choices(self):
        answer = self.chat(n=2, temperature=1.0)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1])
        texts = [choice.message.content for choice in answer.choices]
        chunks = list(self.chat(n=2, temperature=1.0, stream=True))
        self.assertEqual([joined(chunks, 0), joined(chunks, 1)], texts)

    def test_log_probabilities(self):
        answer = self.chat(logprobs=True, top_logprobs=3, temperature=0)
        content = answer.choices[0].logprobs.content
        self.assertEqual(len(content), answer.usage.completion_tokens)
        for entry in content:
            self.assertLessEqual(entry.logprob, 0)
            self.assertEqual(len(entry.top_logprobs), 3)
            values = [top.logprob for top in entry.top_logprobs]
            self.assertEqual(values, sorted(values, reverse=True))
            self.assertAlmostEqual(entry.logprob, values[0], places=5)
        raw = b"".join(bytes(entry.bytes or ()) for entry in content)
        self.assertIn(answer.choices[0].message.content.encode(), raw)

    def test_max_completion_tokens_wins(self):
        extra = {"ignore_eos": True}
        answer = self.chat(max_tokens=9, max_completion_tokens=5, extra_body=extra)
        self.assertEqual(answer.usage.completion_tokens, 5)
        self.assertEqual(answer.choices[0].finish_reason, "length")


class Completions(WithModel):
    def test_answer(self):
        answer = self.complete()
        self.assertTrue(answer.id.startswith("cmpl-"))
        self.assertEqual(answer.object, "text_completion")
        self.assertTrue(answer.choices[0].text)
        self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))

    def test_stream_equals_answer(self):
        answer = self.complete(temperature=1.0)
        chunks = list(
            self.complete(temperature=1.0, stream=True, stream_options={"include_usage": True})
        )
        text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
        self.assertEqual(text, answer.choices[0].text)
        self.assertEqual(chunks[-1].usage.completion_tokens, answer.usage.completion_tokens)

    def test_stop_strings(self):
        whole = self.complete(temperature=0, max_tokens=32).choices[0].text
        self.assertGreater(len(whole), 12)
        stop = whole[8:11]
        want = whole[: whole.index(stop)]
        answer = self.complete(temperature=0, max_tokens=32, stop=[stop]).choices[0]
        self.assertEqual((answer.text, answer.finish_reason), (want, "stop"))
        self.assertEqual(answer.model_extra["stop_reason"], stop)
        chunks = list(self.complete(temperature=0, max_tokens=32, stop=stop, stream=True))
        self.assertEqual("".join(c.text for chunk in chunks for c in chunk.choices), want)
        extra = {"include_stop_str_in_output": True}
        kept = self.complete(temperature=0, max_tokens=32, stop=[stop], extra_body=extra)
        self.assertEqual(kept.choices[0].text, want + stop)

    def test_log_probabilities(self):
        answer = self.complete(logprobs=2, temperature=0, max_tokens=8)
        logprobs = answer.choices[0].logprobs
        num_tokens = answer.usage.completion_tokens
        self.assertEqual(len(logprobs.tokens), num_tokens)
        self.assertEqual(len(logprobs.token_logprobs), num_tokens)
        self.assertEqual(len(logprobs.top_logprobs), num_tokens)
        self.assertEqual(logprobs.text_offset[0], 0)
        for token, logprob, top in zip(
            logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs
        ):
            self.assertAlmostEqual(top[token], logprob, places=5)
            self.assertAlmostEqual(max(top.values()), logprob, places=5)

    def test_echo_and_token_ids(self):
        text = "Größe 東京 😀"
        echoed = self.complete(prompt=text, echo=True, max_tokens=1).choices[0].text
        self.assertTrue(echoed.startswith(text), echoed)
        ids = post("/tokenize", {"model": self.model, "prompt": PROMPT})["tokens"]
        by_ids, by_text = self.complete(prompt=ids), self.complete()
        self.assertEqual(by_ids.choices[0].text, by_text.choices[0].text)
        self.assertEqual(by_ids.usage.prompt_tokens, len(ids))

    def test_several_prompts(self):
        answer = self.complete(prompt=["One", "Two two", "Three"], n=2, temperature=1.0)
        self.assertEqual([choice.index for choice in answer.choices], list(range(6)))


class Cancelling(WithModel):
    def long_stream(self):
        extra = {"ignore_eos": True}
        return self.complete(max_tokens=MANY_TOKENS, stream=True, extra_body=extra)

    def test_closed_stream_frees_its_sequence(self):
        aborted = metric("vllm:request_success_total", finished_reason="abort")
        stream = self.long_stream()
        for _, _ in zip(range(3), stream):
            pass
        stream.close()
        wait_until_idle()
        wait_for(
            "the cancelled request is counted",
            lambda: metric("vllm:request_success_total", finished_reason="abort") > aborted,
        )
        wait_for("the gauge falls", lambda: metric("vllm:num_requests_running") == 0)

    def test_cancelled_task_frees_its_sequence(self):
        async def cancel_in_the_middle():
            async with async_client() as api:
                stream = await api.chat.completions.create(
                    model=self.model,
                    messages=MESSAGES,
                    max_tokens=MANY_TOKENS,
                    stream=True,
                    extra_body={"ignore_eos": True},
                )
                seen = asyncio.Event()

                async def read():
                    async for _ in stream:
                        seen.set()

                task = asyncio.create_task(read())
                await asyncio.wait_for(seen.wait(), 30)
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                await stream.close()

        asyncio.run(cancel_in_the_middle())
        wait_until_idle()

    def test_others_go_on(self):
        async def many():
            async with async_client() as api:

                async def one(index):
                    stream = await api.chat.completions.create(
                        model=self.model,
                        messages=MESSAGES,
                        max_tokens=64,
                        seed=11,
                        stream=True,
                    )
                    chunks = []
                    async for chunk in stream:
                        chunks.append(chunk)
                        if index % 2 and len(chunks) == 3:
                            await stream.close()
                            return None
                    return joined(chunks)

                return await asyncio.gather(*(one(index) for index in range(16)))

        texts = [text for text in asyncio.run(many()) if text is not None]
        self.assertEqual(len(texts), 8)
        self.assertEqual(len(set(texts)), 1, "the same seed, the same text")
        self.assertTrue(texts[0])
        wait_until_idle()


class Errors(WithModel):
    def test_unknown_model(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.chat(model="no-such-model")
        self.assertEqual(caught.exception.status_code, 404)
        self.assertEqual(caught.exception.param, "model")
        self.assertEqual(caught.exception.type, "NotFoundError")
        self.assertIn("no-such-model", caught.exception.message)
        with self.assertRaises(openai.NotFoundError):
            self.complete(model="no-such-model", stream=True)

    def test_bad_parameters(self):
        for changes in (
            {"temperature": -1},
            {"temperature": "hot"},
            {"top_p": 2},
            {"n": 0},
            {"max_tokens": -1},
            {"presence_penalty": 3},
            {"logprobs": True, "top_logprobs": 1000},
            {"stream_options": {"include_usage": True}},
            {"messages": "hello"},
            {"messages": [{"content": "no role"}]},
            {"stop": [""]},
            {"logit_bias": {"x": 1}},
            {"tools": []},
        ):
            with self.subTest(changes), self.assertRaises(openai.BadRequestError) as caught:
                self.chat(**changes)
            self.assertEqual(caught.exception.status_code, 400)
            self.assertTrue(caught.exception.body["message"], changes)

    def test_prompt_longer_than_the_context(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.complete(prompt="long " * (self.max_model_len + 10))
        self.assertIn("maximum context length", caught.exception.message)

    def test_wrong_key(self):
        for key in ("wrong", API_KEY[:4]):
            with client(api_key=key) as api, self.assertRaises(openai.AuthenticationError):
                api.models.list()
            with client(api_key=key) as api, self.assertRaises(openai.AuthenticationError):
                api.chat.completions.create(model=self.model, messages=MESSAGES, stream=True)

    def test_unknown_route(self):
        with self.assertRaises(openai.NotFoundError):
            self.api.images.generate(prompt="a dog")

    def test_the_server_goes_on(self):
        for _ in range(5):
            with self.assertRaises(openai.BadRequestError):
                self.chat(temperature=-1)
        self.assertTrue(self.chat().choices[0].message.content)
        self.assertEqual(get("/health"), "")


if __name__ == "__main__":
    unittest.main()
