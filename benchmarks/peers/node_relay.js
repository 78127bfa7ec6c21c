// Node's http and its fetch (undici): the upstream's bytes are decoded and cut into lines as they come.
import { once } from 'node:events';
import { createServer } from 'node:http';

const UPSTREAM = `${process.env.OPENAI_BASE_URL}/chat/completions`;
const AUTHORIZATION = `Bearer ${process.env.OPENAI_API_KEY}`;
const HEADERS = {
  'Content-Type': 'text/event-stream; charset=utf-8',
  'Cache-Control': 'no-cache, no-transform',
  'X-Accel-Buffering': 'no',
};

async function messageOf(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const { message } = JSON.parse(Buffer.concat(parts).toString());
  if (typeof message !== 'string' || !message) throw new SyntaxError('message must be a text');
  return message;
}

async function* dataOf(body) {
  const decoder = new TextDecoder();
  let held = '';
  for await (const bytes of body) {
    const lines = (held + decoder.decode(bytes, { stream: true })).split('\n');
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith('data:')) continue;
      const data = line.slice(5).trim();
      if (data === '[DONE]') return;
      yield JSON.parse(data);
    }
  }
}

async function relay(request, response, gone) {
  const message = await messageOf(request);
  const upstream = await fetch(UPSTREAM, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: AUTHORIZATION },
    body: JSON.stringify({
      model: 'gpt-4o-mini',
      messages: [{ role: 'user', content: message }],
      stream: true,
      stream_options: { include_usage: true },
    }),
    signal: gone,
  });
  if (!upstream.ok) {
    response.writeHead(502).end();
    return;
  }
  response.writeHead(200, HEADERS);
  let index = 0;
  for await (const chunk of dataOf(upstream.body)) {
    const text = chunk.choices[0]?.delta.content;
    if (!text) continue;
    const data = JSON.stringify({ content: text, metadata: { index } });
    if (!response.write(`data: ${data}\nid: ${index}\n\n`)) {
      await once(response, 'drain', { signal: gone });
    }
    index++;
  }
  response.end('event: done\ndata: [DONE]\n\n');
}

const server = createServer((request, response) => {
  if (request.url !== '/relay' || request.method !== 'POST') {
    response.writeHead(404).end();
    return;
  }
  const leaving = new AbortController();
  response.on('close', () => leaving.abort());
  relay(request, response, leaving.signal).catch((error) => {
    if (error instanceof SyntaxError && !response.headersSent) response.writeHead(400).end();
    else if (error.name !== 'AbortError') response.destroy(error);
  });
});

server.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 4096 });
