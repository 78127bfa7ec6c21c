// Read a stream with Node's fetch, a line of JSON a chunk:
//   node read-fetch.mjs 'http://localhost:8080/api/steps?steps=5'
// Exits with 0 when all came, 1 when the server told an error, 2 when the stream was cut.

const url = process.argv[2] ?? "http://localhost:8080/api/steps";

async function* readValues(body) {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.trim()) yield JSON.parse(line);
  }
}

async function read() {
  const answer = await fetch(url, { headers: { Accept: "application/x-ndjson" } });
  if (!answer.ok) {
    const { code, detail } = await answer.json();
    console.error(`failed: ${code}: ${detail}`);
    return 1;
  }
  for await (const value of readValues(answer.body)) {
    if (value.error) {
      console.error(`failed: ${value.error.code}: ${value.error.message}`);
      return 1;
    }
    if (value.done) return 0;
    console.log(`step ${value.step} of ${value.of}`);
  }
  console.error("lost: the stream ended before its end");
  return 2;
}

process.exitCode = await read().catch((error) => {
  console.error(`lost: ${error.cause?.message ?? error.message}`);
  return 2;
});
