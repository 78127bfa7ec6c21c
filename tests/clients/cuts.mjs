// Reads one stream many times, each time cut off after another byte of its body, with the clients that Node's users have.
import net from "node:net";
import { fetchEventSource } from "@microsoft/fetch-event-source";
import { EventSource } from "eventsource";
import { createEventSource } from "eventsource-client";
import { tell } from "./told.mjs";

// What fetch-event-source takes from a page.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };

const [address] = process.argv.slice(2);
const target = new URL(address);

/** Stand before the server: the first answer for each `?key=` is cut off after the bytes of body that `&cut=` says. */
function cutting() {
  const seen = new Set();
  const server = net.createServer((client) => {
    client.on("error", () => {});
    client.once("data", (request) => {
      const text = request.toString("latin1");
      const [, key, cut] = /\?key=([^& ]+)&cut=(\d+)/.exec(text) ?? [];
      let left = seen.has(key) ? Infinity : Number(cut);
      seen.add(key);
      let head = true;
      const other = net.connect(Number(target.port), target.hostname);
      other.on("error", () => client.destroy());
      other.on("end", () => client.end());
      // HTTP/1.0: the body stands as it is, and ends with the connection.
      other.write(text.replace("HTTP/1.1", "HTTP/1.0").replace(/keep-alive/gi, "close"));
      let kept = Buffer.alloc(0);
      other.on("data", (data) => {
        if (head) {
          kept = Buffer.concat([kept, data]);
          const end = kept.indexOf("\r\n\r\n");
          if (end < 0) return;
          head = false;
          client.write(kept.subarray(0, end + 4));
          data = kept.subarray(end + 4);
        }
        client.write(data.subarray(0, Math.min(left, data.length)));
        left -= data.length;
        if (left <= 0) {
          client.end();
          other.destroy();
        }
      });
    });
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

const clients = {
  "fetch-event-source": (url) =>
    new Promise((resolve, reject) => {
      const chunks = [];
      const stop = new AbortController();
      let asked = 0;
      fetchEventSource(url, {
        signal: stop.signal,
        openWhenHidden: true,
        onopen(response) {
          if (response.status !== 200) throw new Error(`status ${response.status}`);
        },
        onmessage(event) {
          chunks.push(event.event === "done" ? "done" : event.data);
          if (event.event === "done") {
            stop.abort();
            resolve(chunks);
          }
        },
        onclose() {
          throw new Error("closed"); // so that it asks again
        },
        onerror(error) {
          if (++asked > 3) throw error;
          return 1;
        },
      }).catch((error) => resolve([...chunks, String(error.message)]));
    }),
  eventsource: (url) =>
    new Promise((resolve) => {
      const chunks = [];
      const source = new EventSource(url);
      source.onmessage = (event) => chunks.push(event.data);
      source.addEventListener("done", () => {
        source.close();
        resolve([...chunks, "done"]);
      });
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) resolve([...chunks, "gave up"]);
      };
    }),
  "eventsource-client": (url) =>
    new Promise((resolve) => {
      const chunks = [];
      const source = createEventSource({
        url,
        onMessage(event) {
          chunks.push(event.event === "done" ? "done" : event.data);
          if (event.event === "done") {
            source.close();
            resolve(chunks);
          }
        },
      });
    }),
};

const alive = setInterval(() => {}, 1000);
const body = await (await fetch(`${address}/few`)).text();
const proxy = await cutting();
const scenarios = { body: () => body };
for (const [name, read] of Object.entries(clients)) {
  scenarios[name] = () =>
    Promise.all(
      [...Array(body.length + 1).keys()].map((cut) =>
        read(`http://127.0.0.1:${proxy.address().port}/few?key=${name}${cut}&cut=${cut}`),
      ),
    );
}
await tell(scenarios);
clearInterval(alive);
process.exit(0);
