// Anthropic's npm client reads an endpoint of `format: anthropic`. The argument is the server's address.
import Anthropic from "@anthropic-ai/sdk";

import { tell } from "./told.mjs";

const client = new Anthropic({ apiKey: "none", baseURL: process.argv[2], maxRetries: 0 });

const wish = (content) => ({
  model: "our-own",
  max_tokens: 100,
  messages: [{ role: "user", content }],
});

const whole = (content) => () => client.messages.create(wish(content));

const streamed = (content) => async (seen) => {
  seen.text = "";
  seen.types = [];
  for await (const event of await client.messages.create({ ...wish(content), stream: true })) {
    if (event.delta?.type === "text_delta") seen.text += event.delta.text;
    seen.types.push(event.type);
  }
};

const helped = (content) => () => client.messages.stream(wish(content)).finalMessage();

await tell({
  "whole text": whole("text"),
  "whole tools": whole("tools"),
  "whole items": whole("items"),
  "whole refuses": whole("refuses"),
  "whole fails": whole("fails"),
  "streamed text": streamed("text"),
  "streamed slow": streamed("slow"),
  "streamed refuses": streamed("refuses"),
  "streamed fails": streamed("fails"),
  "streamed done-then-fails": streamed("done-then-fails"),
  "helped text": helped("text"),
  "helped tools": helped("tools"),
  "helped items": helped("items"),
  "helped thinks": helped("thinks"),
  "helped late": helped("late"),
  "helped fails": helped("fails"),
  "helped done-then-fails": helped("done-then-fails"),
  invalid: () => client.messages.create({ model: "m", max_tokens: 1, messages: [] }),
});
