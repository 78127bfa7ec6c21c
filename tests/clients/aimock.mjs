// Models as somebody else simulates them, every provider on one port. What is answered depends on what is asked.
// Prints its address, and ends with its standard input.
import { LLMock } from "@copilotkit/aimock";

const TEXT = "The sky is blüe, 世界 🌍, and it stays so for the whole of this answer.";

const mock = new LLMock({ port: 0, host: "127.0.0.1", logLevel: "silent", chunkSize: 9, strict: true });
const on = (userMessage, response, options) => mock.on({ userMessage }, response, options);

on("text", { content: TEXT });
on("slow", { content: TEXT }, { latency: 30 });
on("reasons", { content: TEXT, reasoning: "It was asked what the sky is like.", reasoningSignature: "c2ln" });
on("cut", { content: TEXT, finishReason: "length" });
mock.on({ toolCallId: "call_1" }, { content: "It is 21 degrees." });
on("tools", {
  content: "Let me see.",
  toolCalls: [
    { name: "weather", arguments: JSON.stringify({ city: "Gent", unit: "C" }), id: "call_0" },
    { name: "clock", arguments: "{}", id: "call_1" },
  ],
});
on("too often", { error: { message: "Slow down", type: "rate_limit_error" }, status: 429, retryAfter: 3 });
on("broken", { error: { message: "Oh no", type: "server_error" }, status: 500 });
on("no key", { error: { message: "Who are you?", type: "authentication_error" }, status: 401 });
on("truncated", { content: TEXT }, { latency: 20, truncateAfterChunks: 6 });
on("disconnected", { content: TEXT }, { latency: 30, disconnectAfterMs: 150 });
on("hangs up", { content: TEXT }, { chaos: { disconnectRate: 1 } });
on("drops", { content: TEXT }, { chaos: { dropRate: 1 } });
on("malformed", { content: TEXT }, { chaos: { malformedRate: 1 } });
on("limits", { content: TEXT }, { chaos: { rateLimitRate: 1 } });

await mock.start();
console.log(mock.url);
process.stdin.resume();
process.stdin.on("end", async () => {
  await mock.stop();
  process.exit(0);
});
