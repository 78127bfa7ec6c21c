// Vercel's AI SDK reads an endpoint of `format: aiSdk`, as `useChat` does. The arguments are the server's address, and a scenario
// if only one is to run.
import { AbstractChat, DefaultChatTransport } from "ai";

import { tell } from "./told.mjs";

/** What `useChat` keeps in React. */
class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => this.messages.push(message);
  popMessage = () => this.messages.pop();
  replaceMessage = (index, message) => (this.messages[index] = structuredClone(message));
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {}

function open() {
  const state = new State();
  const transport = new DefaultChatTransport({ api: `${process.argv[2]}/api/chat` });
  const ended = {};
  const chat = new Chat({ state, transport, onFinish: (event) => Object.assign(ended, event) });
  return { chat, ended };
}

const told = ({ chat, ended }) => ({
  status: chat.status,
  error: chat.error?.message,
  reason: ended.finishReason,
  failed: ended.isError,
  messages: chat.messages.map(({ id, role, metadata, parts }) => ({ id, role, metadata, parts })),
});

const said = (text) => async () => {
  const talk = open();
  await talk.chat.sendMessage({ text });
  return told(talk);
};

/** A tool that the page runs: its result is sent back, and the same message goes on. */
const continued = () => async () => {
  const talk = open();
  await talk.chat.sendMessage({ text: "tools" });
  const call = talk.chat.messages[1].parts.find((part) => part.type === "tool-weather");
  await talk.chat.addToolOutput({ tool: "weather", toolCallId: call.toolCallId, output: "sunny" });
  await talk.chat.sendMessage(undefined, { body: { wish: "items" } });
  return told(talk);
};

const scenarios = {
  text: said("text"),
  thinks: said("thinks"),
  tools: said("tools"),
  items: said("items"),
  slow: said("slow"),
  late: said("late"),
  silent: said("silent"),
  figures: said("figures"),
  fails: said("fails"),
  "done-then-fails": said("done-then-fails"),
  refuses: said("refuses"),
  continued: continued(),
};
const only = process.argv[3];
await tell(only ? { [only]: scenarios[only] } : scenarios);
