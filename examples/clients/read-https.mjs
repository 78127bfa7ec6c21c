// Read server-sent events with Node's https module (http for a local server), in any version of Node:
//   node read-https.mjs 'http://localhost:8080/api/steps?steps=5'
// Exits with 0 when all came, 1 when the server told an error, 2 when the stream was cut.

import http from "node:http";
import https from "node:https";

const url = new URL(process.argv[2] ?? "http://localhost:8080/api/steps");
const { get } = url.protocol === "https:" ? https : http;

const finish = (code, message) => {
  if (process.exitCode !== undefined) return; // the first end counts
  process.exitCode = code;
  if (message) console.error(message);
  request.destroy();
};

function take(block) {
  const fields = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = line.match(/^(\w*): ?(.*)$/) ?? [];
    if (name === "data") fields.data += (fields.data && "\n") + value;
    else if (name === "event") fields.event = value;
  }
  if (!fields.data) return;
  const value = JSON.parse(fields.data);
  if (fields.event === "done") finish(0);
  else if (fields.event === "error") finish(1, `failed: ${value.code}: ${value.message}`);
  else console.log(`step ${value.step} of ${value.of}`);
}

const request = get(url, { headers: { Accept: "text/event-stream" } }, (answer) => {
  answer.setEncoding("utf8");
  let rest = "";
  answer.on("data", (text) => {
    rest += text;
    if (answer.statusCode !== 200) return;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    blocks.forEach(take);
  });
  answer.on("end", () => {
    if (answer.statusCode === 200) return finish(2, "lost: the stream ended before its end");
    const { code, detail } = JSON.parse(rest);
    return finish(1, `failed: ${code}: ${detail}`);
  });
  answer.on("error", (error) => finish(2, `lost: ${error.message}`));
});
request.on("error", (error) => finish(2, `lost: ${error.message}`));
