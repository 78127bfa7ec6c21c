// Reads server-sent events from an answer of fetch, and from EventSource: the same events from both.

/** Give the events of a stream of bytes: {event, id, data}. Any cut of the bytes gives the same events. */
export async function* readEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder(); // strips a BOM, and joins characters cut in two
  let rest = "";
  let event = { event: "message", id: "", data: [] };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      // A CR at the end may be half of a CRLF: leave it for the next piece.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data.length) yield { ...event, data: event.data.join("\n") };
          event = { event: "message", id: event.id, data: [] };
          continue;
        }
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name === "data") event.data.push(text);
        else if (name === "event") event.event = text || "message";
        else if (name === "id") event.id = text;
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {}); // leaving the loop early closes the connection
  }
}

/**
 * Read a stream with fetch. `onChunk` gets the data of each chunk; the promise gives the data of `done`.
 * It fails with the server's error, with an AbortError after `signal`, or when the stream ends too soon.
 */
export async function readWithFetch(url, { body = {}, signal, onChunk }) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(body),
    signal,
  });
  if (!answer.ok) {
    const problem = await answer.json();
    throw new Error(`${problem.code}: ${problem.detail}`);
  }
  for await (const { event, data } of readEvents(answer.body)) {
    const value = JSON.parse(data);
    if (event === "done") return value;
    if (event === "error") throw new Error(`${value.code}: ${value.message}`);
    onChunk(value);
  }
  throw new Error("the stream ended before its end");
}

/** Read a stream with EventSource, in the same way. It can only GET, and sends no headers. */
export function readWithEventSource(url, { signal, onChunk }) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(url);
    const end = (settle, value) => {
      source.close(); // or it would connect again, and the poem would start over
      settle(value);
    };
    signal?.addEventListener("abort", () => end(reject, new DOMException("stopped", "AbortError")));
    source.addEventListener("message", ({ data }) => onChunk(JSON.parse(data)));
    source.addEventListener("done", ({ data }) => end(resolve, JSON.parse(data)));
    // An error of the server has data; one of the connection has none.
    source.addEventListener("error", ({ data }) => {
      if (data === undefined) return end(reject, new Error("the connection was lost"));
      const { code, message } = JSON.parse(data);
      return end(reject, new Error(`${code}: ${message}`));
    });
  });
}
