// Talks to endpoints over WebSocket with `ws`, and breaks the protocol over the socket below it.
import WebSocket from "ws";
import { tell } from "./told.mjs";

const [address] = process.argv.slice(2);
const at = (path) => address.replace("http", "ws") + path;

/** What a WebSocket receives until it is closed; `act` may send. */
function talk(path, act = () => {}, options = {}, protocols = []) {
  return new Promise((resolve) => {
    const seen = { messages: [], pings: 0 };
    const socket = new WebSocket(at(path), protocols, options);
    socket.on("upgrade", (response) => (seen.extensions = response.headers["sec-websocket-extensions"] ?? ""));
    socket.on("unexpected-response", (_, response) => resolve({ status: response.statusCode }));
    socket.on("open", () => act(socket, seen));
    socket.on("ping", () => (seen.pings += 1));
    socket.on("message", (data) => {
      seen.messages.push(JSON.parse(data));
      act(socket, seen);
    });
    socket.on("close", (code, reason) => resolve({ ...seen, code, protocol: socket.protocol }));
    socket.on("error", () => {});
  });
}

const large = "é".repeat(100_000);
/** Sends one message after each that was received, and closes after the last. */
const inTurn = (messages) => (socket, { messages: received }) => {
  const next = messages[received.length];
  if (next === undefined) socket.close(1000);
  else socket.send(JSON.stringify(next));
};

await tell({
  echo: () => talk("/echo", inTurn(["a", { b: [1, null] }, 3])),
  compressed: async () => {
    const seen = await talk("/compressed", inTurn([large, large, "end"]));
    return { ...seen, messages: seen.messages.map((each) => each.content.length) };
  },
  "not compressed": () => talk("/compressed", inTurn(["a"]), { perMessageDeflate: false }),
  fragments: () =>
    talk("/echo", (socket, { messages }) => {
      if (messages.length) return socket.close(1000);
      socket.send('{"a":', { fin: false });
      socket.ping("between");
      socket.send('"ü"}', { fin: true });
    }),
  subprotocol: () => talk("/echo", (socket) => socket.close(1000), {}, ["v9", "v1"]),
  "no subprotocol in common": () => talk("/count", () => {}, {}, ["v9"]),
  count: () => talk("/count"),
  refused: () => talk("/count?times=many"),
  pings: () => talk("/quiet"),
  "invalid JSON": () => talk("/echo", (socket, { messages }) => messages.length || socket.send("{")),
  "too large": () => talk("/echo", (socket) => socket.send("x".repeat(2_000_000))),
});
