// The server under test, and what the suite asks of it beside the OpenAI API.
//
// Invariant: every wait is bounded, and no client retries: a failed request fails its test.

import OpenAI from "openai";
import { setTimeout as sleep } from "node:timers/promises";

export const BASE_URL = process.env.HOTSPARE_TEST_URL;
export const API_KEY = process.env.HOTSPARE_TEST_KEY;
const SETTLE_TIMEOUT_MS = 30_000;

/** A client of the server. */
export function client(changes = {}) {
  const options = { apiKey: API_KEY, timeout: 60_000, maxRetries: 0, ...changes };
  return new OpenAI({ baseURL: `${BASE_URL}/v1`, ...options });
}

/** The answer to a GET that needs no key. */
export async function get(path) {
  const answer = await fetch(BASE_URL + path, { signal: AbortSignal.timeout(60_000) });
  if (!answer.ok) throw new Error(`GET ${path}: ${answer.status}`);
  return answer.text();
}

/** The JSON answer to a POST. */
export async function post(path, body) {
  const answer = await fetch(BASE_URL + path, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${API_KEY}` },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(60_000),
  });
  if (!answer.ok) throw new Error(`POST ${path}: ${answer.status}`);
  return answer.json();
}

/** The sum of a metric's samples that contain this label, written `name="value"`. */
export async function metric(name, label = "") {
  let total = 0;
  for (const line of (await get("/metrics")).split("\n")) {
    const isSample = line.startsWith(`${name}{`) || line.startsWith(`${name} `);
    if (isSample && line.includes(label)) total += Number(line.slice(line.lastIndexOf(" ") + 1));
  }
  return total;
}

/** Waits until the condition holds, for half a minute at most. */
export async function waitFor(what, condition) {
  const deadline = Date.now() + SETTLE_TIMEOUT_MS;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${SETTLE_TIMEOUT_MS} ms: ${what}`);
    await sleep(20);
  }
}

/** Waits until no sequence runs or waits. */
export function waitUntilIdle() {
  return waitFor("no sequence runs or waits", async () => {
    const { engines } = JSON.parse(await get("/ha/status"));
    const main = engines.find((engine) => engine.name === "main");
    return main.running === 0 && main.waiting === 0;
  });
}
