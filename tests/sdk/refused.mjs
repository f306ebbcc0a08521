// Makes chat completions and messages of so many words, so many of each, one after another, and prints
// what an application gets: answers, or exceptions.

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [words, calls] = process.argv.slice(-2).map(Number);
const messages = [{ role: "user", content: "word ".repeat(words) }];
const options = { messages, max_tokens: 20 };

async function outcome(call) {
  try {
    await call();
    return "answer";
  } catch (error) {
    return `${error.constructor.name} ${error.status}`;
  }
}

const [openai, anthropic] = [new OpenAI(), new Anthropic()];
const chat = () => openai.chat.completions.create({ model: "gpt-4o", ...options });
const message = () => anthropic.messages.create({ model: "claude-sonnet-4-6", ...options });

const seen = { openai: [], anthropic: [] };
for (let call = 0; call < calls; call += 1) {
  seen.openai.push(await outcome(chat));
  seen.anthropic.push(await outcome(message));
}
console.log(JSON.stringify(seen));
