// Google's npm client reads endpoints in Gemini's wire. The arguments: the server of the tests' definitions, the simulator.
import { GoogleGenAI } from "@google/genai";

import { tell } from "./told.mjs";

const [address, simulator] = process.argv.slice(2);

const streamed = (baseUrl, contents) => async (seen) => {
  const client = new GoogleGenAI({ apiKey: "none", httpOptions: { baseUrl } });
  seen.text = "";
  seen.calls = [];
  seen.reasons = [];
  for await (const chunk of await client.models.generateContentStream({ model: "our-own", contents })) {
    for (const part of chunk.candidates[0].content.parts) seen.text += part.text ?? "";
    seen.calls.push(...(chunk.functionCalls ?? []));
    if (chunk.candidates[0].finishReason) seen.reasons.push(chunk.candidates[0].finishReason);
    if (chunk.usageMetadata) seen.usage = chunk.usageMetadata;
  }
};

const scenarios = { simulator: streamed(`${simulator}/simulator/gemini`, "What is a stream?") };
for (const way of ["cut", "told"]) {
  for (const wish of ["text", "limited", "tools", "fails", "refuses"]) {
    scenarios[`${way} ${wish}`] = streamed(`${address}/${way}`, wish);
  }
}
for (const wish of ["slow", "fails"]) {
  scenarios[`untold ${wish}`] = streamed(`${address}/untold`, wish);
}
await tell(scenarios);
