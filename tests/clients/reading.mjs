// Reads streams with the project's own client, through a proxy that breaks connections, answers 502 and is away for a while.
import net from "node:net";
import { resume, stream } from "../../engine/streamstack/browser/streamstack.js";
import { tell } from "./told.mjs";

const [address, seed, runs] = process.argv.slice(2);
const target = new URL(address);

/** A small generator of random numbers (mulberry32), so that a failure can be repeated. */
function random(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 4294967296;
  };
}

/** Stand before the server. `fault()` says what happens to each connection: {refuse}, {status}, {cut: bytes} or {}. */
function proxy(fault) {
  const server = net.createServer((client) => {
    const { refuse, status, cut = Infinity, clean } = fault();
    client.on("error", () => {});
    if (refuse) return client.destroy();
    if (status) return client.once("data", () => client.end(`HTTP/1.1 ${status} Bad\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad`));
    const other = net.connect(Number(target.port), target.hostname);
    const end = () => (other.destroy(), clean ? client.end() : client.destroy());
    let left = cut;
    other.on("error", end);
    other.on("end", () => client.end());
    client.on("close", () => other.destroy());
    client.on("data", (data) => other.write(data));
    other.on("data", (data) => {
      client.write(data.subarray(0, Math.min(left, data.length)));
      left -= data.length;
      if (left <= 0) end();
    });
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve({ server, url: `http://127.0.0.1:${server.address().port}` })));
}

const fast = { fetch: (url, init) => fetch(url, init), stallTimeout: 5000, retries: 50, retryDelay: 5 };
const all = async (reader) => {
  const chunks = [];
  for await (const { content, event, metadata } of reader) chunks.push([event, content, metadata]);
  return chunks;
};

/** Many runs with random faults: what differs from the undisturbed stream. */
async function schedules(path, options) {
  const whole = JSON.stringify(await all(stream(`${address}${path}`, options)));
  const wrong = [];
  let faults = 0;
  const one = async (number) => {
    const next = random(Number(seed) + number);
    let broken = 0;
    const { server, url } = await proxy(() => {
      if (broken > 6 || next() < 0.1) return {};
      broken += 1;
      faults += 1;
      const kind = next();
      if (kind < 0.1) return { refuse: true };
      if (kind < 0.2) return { status: [502, 503, 504][Math.floor(next() * 3)] };
      return { cut: Math.floor(next() * 1500), clean: next() < 0.5 };
    });
    try {
      const chunks = await all(stream(`${url}${path}`, { ...fast, ...options, idempotent: true }));
      if (JSON.stringify(chunks) !== whole) wrong.push([number, chunks.length]);
    } catch (error) {
      wrong.push([number, error.code, error.message]);
    }
    server.close();
  };
  for (let number = 0; number < Number(runs); number += 25) await Promise.all([...Array(Math.min(25, runs - number)).keys()].map((each) => one(number + each)));
  return { faults, whole: JSON.parse(whole), wrong };
}

const failure = async (reader) => {
  const chunks = [];
  try {
    for await (const chunk of reader) chunks.push(chunk.content);
    return { chunks, state: reader.state };
  } catch (error) {
    const { code, errors, message, name, status } = error;
    return { chunks, code, errors, message, name, state: reader.state, status };
  }
};

const memory = () => {
  const values = new Map();
  return { values, getItem: (key) => values.get(key) ?? null, setItem: (key, value) => values.set(key, value), removeItem: (key) => values.delete(key) };
};

await tell({
  sse: () => schedules("/mixed", {}),
  ndjson: () => schedules("/mixed", { format: "application/x-ndjson" }),
  post: () => schedules("/posted", { body: { count: 20 } }),
  async truncated() {
    const { server, url } = await proxy(() => ({ cut: 400, clean: true }));
    const results = {};
    for (const path of ["/plain", "/text"]) results[path] = await failure(stream(`${url}${path}`, { retries: 0 }));
    server.close();
    return results;
  },
  async facts() {
    const states = [];
    const seen = [];
    const reader = stream(`${address}/posted`, { body: { count: 4 }, onState: (state) => states.push(state), onChunk: (chunk, { count, progress }) => seen.push([count, progress]) });
    const end = await reader.finished();
    return { chunks: end.chunks, count: reader.count, first: reader.firstChunkTime > 0, seen, states };
  },
  text: () => stream(`${address}/text`).text(),
  refused: () => failure(stream(`${address}/posted`, { body: { count: "x", more: 1 } })),
  failed: () => failure(stream(`${address}/failing`)),
  async unauthorized() {
    let token = "old";
    const asked = [];
    const options = { headers: () => ({ "X-Api-Key": token }), onUnauthorized: (response) => { asked.push(response.status); token = "k-0123456789-0123456789"; return true; } };
    const chunks = await all(stream(`${address}/keyed`, options));
    token = "wrong";
    return { asked, chunks, without: await failure(stream(`${address}/keyed`, { headers: options.headers })) };
  },
  async reload() {
    const store = memory();
    const first = stream(`${address}/slow`, { store });
    const seen = [];
    for await (const chunk of first) {
      seen.push(chunk.content);
      if (seen.length === 2) break; // the page goes away
    }
    const held = store.values.size;
    const again = await all(resume(`${address}/slow`, { store }));
    return { again: again.map(([, content]) => content), held, left: store.values.size, nothing: resume(`${address}/slow`, { store }) };
  },
  async stopped() {
    const store = memory();
    const reader = stream(`${address}/slow`, { store });
    const seen = [];
    for await (const chunk of reader) {
      seen.push(chunk.content);
      if (seen.length === 2) await reader.stop();
    }
    const state = await (await fetch(`${address}/_streams/${reader.id}`, { headers: { Accept: "text/event-stream" } })).text();
    return { left: store.values.size, seen, state: reader.state, stored: state };
  },
  async aborted() {
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 100);
    return failure(stream(`${address}/slow`, { signal: abort.signal }));
  },
  async silent() {
    const server = net.createServer((client) => client.on("error", () => {}).once("data", () => client.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n")));
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const result = await failure(stream(`http://127.0.0.1:${server.address().port}/`, { retries: 0, stallTimeout: 100 }));
    return result;
  },
});
process.exit(0);
