// Reads a stream with the EventSource that Node's users have, until it is told to ask no more.
import { EventSource } from "eventsource";
import { tell } from "./told.mjs";

/** What an EventSource gives its page until it closes by itself, or the run's end is told. */
function read(address, closing) {
  return new Promise((resolve) => {
    const seen = { chunks: [], ids: [], done: 0, gaps: 0, opened: 0 };
    const source = new EventSource(address);
    const end = (how) => {
      source.close();
      resolve({ ...seen, how });
    };
    source.onopen = () => (seen.opened += 1);
    source.onmessage = (event) => {
      seen.chunks.push(event.data);
      seen.ids.push(event.lastEventId);
    };
    source.addEventListener("gap", () => (seen.gaps += 1));
    source.addEventListener("done", () => {
      seen.done += 1;
      if (closing) end("done");
    });
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) end("closed");
    };
  });
}

// While it waits to come back, nothing of it keeps Node running.
const alive = setInterval(() => {}, 1000);
const [address] = process.argv.slice(2);
await tell({
  "cut off": () => read(`${address}/count`, true),
  "left to itself": () => read(`${address}/count`, false),
});
clearInterval(alive);
