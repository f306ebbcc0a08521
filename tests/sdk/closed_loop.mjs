// Calls as fast as answers come, from so many loops per SDK, for so many seconds; every second call is
// a stream. Prints how many answers there were, and every exception.

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [loops, seconds] = process.argv.slice(-2).map(Number);
const question = { messages: [{ role: "user", content: "Why do rivers bend?" }], max_tokens: 20 };
const end = performance.now() + seconds * 1000;

const [openai, anthropic] = [new OpenAI(), new Anthropic()];
const calls = {
  openai: (stream) =>
    openai.chat.completions.create({ model: "gpt-4o", stream, ...question }),
  anthropic: (stream) =>
    anthropic.messages.create({ model: "claude-sonnet-4-6", stream, ...question }),
};

async function read(answer, stream) {
  if (!stream) return Boolean(answer.choices ?? answer.content);
  let events = 0;
  for await (const _ of answer) events += 1;
  return events > 0;
}

const seen = {};
async function loop(name) {
  for (let stream = false; performance.now() < end; stream = !stream) {
    try {
      const isGood = await read(await calls[name](stream), stream);
      seen[name].answers += Number(isGood);
    } catch (error) {
      seen[name].errors.push(String(error));
    }
  }
}

const running = Object.keys(calls).flatMap((name) => {
  seen[name] = { answers: 0, errors: [] };
  return Array.from({ length: loops }, () => loop(name));
});
await Promise.all(running);
console.log(JSON.stringify(seen));
