// The openai npm package against a running server.
//
// Run by ../run.sh. Nothing here depends on what the model says, only on what an OpenAI client may
// rely on.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import OpenAI from "openai";
import { API_KEY, client, get, metric, post, waitFor, waitUntilIdle } from "./support.mjs";

const MESSAGES = [{ role: "user", content: "Tell me a short story about a dog." }];
const PROMPT = "Once upon a time";
const MANY_TOKENS = 1500;

const api = client();
let model;
let maxModelLen;

const chat = (changes = {}) =>
  api.chat.completions.create({ model, messages: MESSAGES, max_tokens: 24, seed: 7, ...changes });
const complete = (changes = {}) =>
  api.completions.create({ model, prompt: PROMPT, max_tokens: 24, seed: 7, ...changes });

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

function joined(chunks, index = 0) {
  return chunks
    .flatMap((chunk) => chunk.choices)
    .filter((choice) => choice.index === index)
    .map((choice) => choice.delta.content ?? "")
    .join("");
}

before(async () => {
  const [first] = (await api.models.list()).data;
  model = first.id;
  maxModelLen = first.max_model_len;
});

describe("models", () => {
  test("list and retrieve", async () => {
    const models = await collect(api.models.list());
    assert.ok(models.length >= 1);
    const found = await api.models.retrieve(models[0].id);
    assert.equal(found.id, models[0].id);
    assert.ok(found.max_model_len > 0);
    await assert.rejects(api.models.retrieve("no-such-model"), OpenAI.NotFoundError);
  });
});

describe("chat", () => {
  test("answer", async () => {
    const answer = await chat();
    assert.match(answer.id, /^chatcmpl-/);
    assert.equal(answer.model, model);
    assert.equal(answer.choices.length, 1);
    const [choice] = answer.choices;
    assert.equal(choice.message.role, "assistant");
    assert.ok(choice.message.content.length > 0);
    assert.ok(["stop", "length"].includes(choice.finish_reason));
    const { usage } = answer;
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
  });

  test("stream equals answer", async () => {
    const answer = await chat({ temperature: 1 });
    const chunks = await collect(
      await chat({ temperature: 1, stream: true, stream_options: { include_usage: true } }),
    );
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
    assert.deepEqual(
      [chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content],
      ["assistant", ""],
    );
    assert.equal(joined(chunks), answer.choices[0].message.content);
    const last = chunks.at(-1);
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.completion_tokens, answer.usage.completion_tokens);
    assert.ok(chunks.slice(0, -1).every((chunk) => chunk.usage == null));
    assert.equal(chunks.at(-2).choices[0].finish_reason, answer.choices[0].finish_reason);
  });

  test("stream helper", async () => {
    const runner = api.chat.completions.stream({ model, messages: MESSAGES, max_tokens: 24, seed: 7 });
    const final = await runner.finalChatCompletion();
    assert.equal(final.choices[0].message.content, (await chat()).choices[0].message.content);
  });

  test("system prompt and parts", async () => {
    const system = { role: "system", content: "Answer in one short sentence." };
    const [without, withSystem] = [await chat(), await chat({ messages: [system, ...MESSAGES] })];
    assert.ok(withSystem.usage.prompt_tokens > without.usage.prompt_tokens);
    const parts = [{ type: "text", text: MESSAGES[0].content }];
    const inParts = await chat({ messages: [{ role: "user", content: parts }] });
    assert.equal(inParts.choices[0].message.content, without.choices[0].message.content);
  });

  test("non-ASCII", async () => {
    const messages = [{ role: "user", content: "Größe 東京 😀 ½" }];
    const answer = await chat({ messages });
    const { tokens } = await post("/tokenize", { model, messages });
    assert.equal(answer.usage.prompt_tokens, tokens.length);
    const { prompt } = await post("/detokenize", { model, tokens });
    assert.ok(prompt.includes(messages[0].content), prompt);
  });

  test("seed", async () => {
    const texts = [];
    for (const seed of [1, 1, 2, 3, 4]) {
      texts.push((await chat({ seed, temperature: 1 })).choices[0].message.content);
    }
    assert.equal(texts[0], texts[1]);
    assert.ok(new Set(texts).size > 1);
  });

  test("two choices", async () => {
    const answer = await chat({ n: 2, temperature: 1 });
    assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
    const chunks = await collect(await chat({ n: 2, temperature: 1, stream: true }));
    const texts = answer.choices.map((choice) => choice.message.content);
    assert.deepEqual([joined(chunks, 0), joined(chunks, 1)], texts);
  });

  test("log probabilities", async () => {
    const answer = await chat({ logprobs: true, top_logprobs: 3, temperature: 0 });
    const { content } = answer.choices[0].logprobs;
    assert.equal(content.length, answer.usage.completion_tokens);
    for (const entry of content) {
      assert.ok(entry.logprob <= 0);
      assert.equal(entry.top_logprobs.length, 3);
      assert.ok(Math.abs(entry.logprob - entry.top_logprobs[0].logprob) < 1e-5);
    }
    const raw = Buffer.from(content.flatMap((entry) => entry.bytes ?? [])).toString();
    assert.ok(raw.includes(answer.choices[0].message.content));
  });
});

describe("completions", () => {
  test("stream equals answer", async () => {
    const answer = await complete({ temperature: 1 });
    assert.match(answer.id, /^cmpl-/);
    assert.ok(answer.choices[0].text.length > 0);
    const chunks = await collect(await complete({ temperature: 1, stream: true }));
    const text = chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.text).join("");
    assert.equal(text, answer.choices[0].text);
  });

  test("stop strings", async () => {
    const whole = (await complete({ temperature: 0, max_tokens: 32 })).choices[0].text;
    assert.ok(whole.length > 12);
    const stop = whole.slice(8, 11);
    const want = whole.slice(0, whole.indexOf(stop));
    const [choice] = (await complete({ temperature: 0, max_tokens: 32, stop: [stop] })).choices;
    assert.deepEqual([choice.text, choice.finish_reason, choice.stop_reason], [want, "stop", stop]);
    const chunks = await collect(
      await complete({ temperature: 0, max_tokens: 32, stop, stream: true }),
    );
    assert.equal(chunks.flatMap((chunk) => chunk.choices).map((c) => c.text).join(""), want);
  });

  test("log probabilities, echo and token ids", async () => {
    const answer = await complete({ logprobs: 2, temperature: 0, max_tokens: 8 });
    const { logprobs } = answer.choices[0];
    assert.equal(logprobs.tokens.length, answer.usage.completion_tokens);
    logprobs.tokens.forEach((token, i) => {
      assert.ok(Math.abs(logprobs.top_logprobs[i][token] - logprobs.token_logprobs[i]) < 1e-5);
    });
    const echoed = await complete({ prompt: "Größe 東京 😀", echo: true, max_tokens: 1 });
    assert.ok(echoed.choices[0].text.startsWith("Größe 東京 😀"));
    const { tokens } = await post("/tokenize", { model, prompt: PROMPT });
    const byIds = await complete({ prompt: tokens });
    assert.equal(byIds.choices[0].text, (await complete()).choices[0].text);
  });
});

describe("cancelling", () => {
  test("a stream that is left frees its sequence", async () => {
    const label = 'finished_reason="abort"';
    const aborted = await metric("vllm:request_success_total", label);
    const stream = await complete({ max_tokens: MANY_TOKENS, stream: true, ignore_eos: true });
    let seen = 0;
    for await (const _ of stream) {
      if (++seen === 3) break;
    }
    await waitUntilIdle();
    await waitFor("the cancelled request is counted", async () => {
      return (await metric("vllm:request_success_total", label)) > aborted;
    });
  });

  test("an aborted request frees its sequence", async () => {
    const controller = new AbortController();
    const stream = await api.chat.completions.create(
      { model, messages: MESSAGES, max_tokens: MANY_TOKENS, stream: true, ignore_eos: true },
      { signal: controller.signal },
    );
    let seen = 0;
    for await (const _ of stream) {
      if (++seen === 3) controller.abort();
    }
    assert.ok(seen < MANY_TOKENS);
    await waitUntilIdle();
    const waiting = new AbortController();
    const request = api.chat.completions.create(
      { model, messages: MESSAGES, max_tokens: MANY_TOKENS, ignore_eos: true },
      { signal: waiting.signal },
    );
    setTimeout(() => waiting.abort(), 20);
    await assert.rejects(request, OpenAI.APIUserAbortError);
    await waitUntilIdle();
  });
});

describe("errors", () => {
  test("unknown model", async () => {
    const error = await chat({ model: "no-such-model" }).catch((e) => e);
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.deepEqual([error.status, error.param, error.type], [404, "model", "NotFoundError"]);
    await assert.rejects(complete({ model: "no-such-model", stream: true }), OpenAI.NotFoundError);
  });

  test("bad parameters", async () => {
    for (const changes of [
      { temperature: -1 },
      { temperature: "hot" },
      { top_p: 2 },
      { n: 0 },
      { max_tokens: -1 },
      { stream_options: { include_usage: true } },
      { messages: "hello" },
      { stop: [""] },
      { tools: [] },
    ]) {
      const error = await chat(changes).catch((e) => e);
      assert.ok(error instanceof OpenAI.BadRequestError, JSON.stringify(changes));
      assert.equal(error.status, 400);
    }
    const long = "long ".repeat(maxModelLen + 10);
    await assert.rejects(complete({ prompt: long }), /maximum context length/);
  });

  test("wrong key", async () => {
    for (const apiKey of ["wrong", API_KEY.slice(0, 4)]) {
      const stranger = client({ apiKey });
      await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
    }
    assert.equal(await get("/health"), "");
  });
});
