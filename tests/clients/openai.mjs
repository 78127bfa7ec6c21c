// OpenAI's npm client reads an endpoint of `format: openai`. The argument is the server's address.
import OpenAI from "openai";

import { tell } from "./told.mjs";

const client = new OpenAI({ apiKey: "none", baseURL: `${process.argv[2]}/v1`, maxRetries: 0 });

const wish = (content) => ({
  model: "our-own",
  messages: [{ role: "user", content }],
  temperature: 0.5,
});

const whole = (content) => () => client.chat.completions.create(wish(content));

const streamed = (content) => async (seen) => {
  const options = { stream: true, stream_options: { include_usage: true } };
  seen.text = "";
  seen.reasons = [];
  for await (const chunk of await client.chat.completions.create({ ...wish(content), ...options })) {
    seen.text += chunk.choices[0]?.delta.content ?? "";
    if (chunk.choices[0]?.finish_reason) seen.reasons.push(chunk.choices[0].finish_reason);
    if (chunk.usage) seen.usage = chunk.usage;
  }
};

const helped = (content) => () =>
  client.chat.completions.stream({ ...wish(content), stream: true }).finalChatCompletion();

await tell({
  "whole text": whole("text"),
  "whole tools": whole("tools"),
  "whole items": whole("items"),
  "whole refuses": whole("refuses"),
  "whole fails": whole("fails"),
  "streamed text": streamed("text"),
  "streamed items": streamed("items"),
  "streamed slow": streamed("slow"),
  "streamed late": streamed("late"),
  "streamed refuses": streamed("refuses"),
  "streamed fails": streamed("fails"),
  "streamed done-then-fails": streamed("done-then-fails"),
  "helped text": helped("text"),
  "helped tools": helped("tools"),
  "helped fails": helped("fails"),
  "helped done-then-fails": helped("done-then-fails"),
  invalid: () => client.chat.completions.create({ model: "m", messages: [] }),
});
