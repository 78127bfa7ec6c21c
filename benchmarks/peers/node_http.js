// Node's own http: a write per chunk, waiting where the socket asks for it. Node itself gathers what
// is written in one turn of its loop into one system call.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const HEADERS = {
  'Content-Type': 'text/event-stream; charset=utf-8',
  'Cache-Control': 'no-cache, no-transform',
  'X-Accel-Buffering': 'no',
};

function event(index, total) {
  const data = JSON.stringify({
    content: `Chunk ${index} of a stream, as long as a line of text is.`,
    metadata: { chunkIndex: index, totalChunks: total, timestamp: new Date().toISOString() },
  });
  return `data: ${data}\nid: ${index}\n\n`;
}

async function send(response, text, gone) {
  if (!response.write(text)) await once(response, 'drain', { signal: gone });
}

async function stream(response, count, interval, gone) {
  response.writeHead(200, HEADERS);
  let due = performance.now();
  for (let index = 0; index < count; index++) {
    if (interval && index) {
      due += interval;
      await sleep(Math.max(0, due - performance.now()), undefined, { signal: gone });
    }
    await send(response, event(index, count), gone);
  }
  response.end('event: done\ndata: [DONE]\n\n');
}

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://127.0.0.1');
  const number = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise);
  const leaving = new AbortController();
  response.on('close', () => leaving.abort());
  let work;
  if (url.pathname === '/burst') {
    work = stream(response, number('count', 1000), 0, leaving.signal);
  } else if (url.pathname === '/paced') {
    work = stream(response, number('count', 10), number('interval', 1000), leaving.signal);
  } else {
    response.writeHead(404).end();
    return;
  }
  work.catch((error) => {
    if (error.name !== 'AbortError') response.destroy(error);
  });
});

server.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 4096 });
