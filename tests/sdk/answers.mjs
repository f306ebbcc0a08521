// Calls everything that the two SDKs offer of what Weir knows, one call after another, and prints what
// an application sees: texts, ends, usage.

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const question = [{ role: "user", content: "Why do rivers bend? ".repeat(5) }];
const chat = { model: "gpt-4o", messages: question, max_tokens: 40 };
const message = { model: "claude-sonnet-4-6", messages: question, max_tokens: 40 };

const [openai, anthropic] = [new OpenAI(), new Anthropic()];
const seen = {};

async function all(iterable) {
  const found = [];
  for await (const one of iterable) found.push(one);
  return found;
}

async function chatStream(options) {
  const chunks = await all(
    await openai.chat.completions.create({ ...chat, ...options, stream: true }),
  );
  const choices = chunks.flatMap((chunk) => chunk.choices);
  return {
    text: choices.map((choice) => choice.delta.content ?? "").join(""),
    ends: choices.map((choice) => choice.finish_reason).filter((end) => end),
    usages: chunks
      .filter((chunk) => chunk.usage || chunk.choices.length === 0)
      .map((chunk) => [chunk.choices.length, chunk.usage]),
  };
}

const answers = await openai.chat.completions.create({ ...chat, n: 2 });
const texts = answers.choices.map((choice) => choice.message.content);
seen["chat"] = { texts, usage: answers.usage };
seen["chat stream"] = await chatStream({});
seen["chat stream with usage"] = await chatStream({ stream_options: { include_usage: true } });

const answer = await openai.responses.create({ model: "gpt-4o", input: "Why do rivers bend?" });
seen["response"] = { text: answer.output_text, usage: answer.usage };
const events = await all(
  await openai.responses.create({ model: "gpt-4o", input: "Why?", stream: true }),
);
const last = events.at(-1).response;
seen["response stream"] = {
  kinds: events.map((event) => event.type),
  text: last.output[0].content[0].text,
  usage: last.usage,
};

const vectors = await openai.embeddings.create({
  model: "text-embedding-3-small",
  input: ["a river", "a weir"],
});
seen["embeddings"] = {
  sums: vectors.data.map(({ embedding }) => embedding.reduce((sum, x) => sum + x, 0).toFixed(3)),
  usage: vectors.usage,
};
seen["openai models"] = (await all(openai.models.list())).map((model) => model.id);

const whole = await anthropic.messages.create(message);
seen["message"] = { text: whole.content[0].text, usage: whole.usage };
const stream = anthropic.messages.stream(message);
const kinds = (await all(stream)).map((event) => event.type);
const final = await stream.finalMessage();
seen["message stream"] = {
  kinds,
  text: final.content[0].text,
  end: final.stop_reason,
  usage: final.usage,
};
const counted = await anthropic.messages.countTokens({
  model: message.model,
  messages: question,
});
seen["count"] = counted.input_tokens;
seen["anthropic models"] = (await all(anthropic.models.list())).map((model) => model.id);

console.log(JSON.stringify(seen));
