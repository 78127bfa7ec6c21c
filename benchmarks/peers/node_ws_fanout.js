// Fan-out by ws: each message is framed once a client, as `client.send` does.
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });

const server = createServer((request, response) => {
  if (request.method !== 'POST') {
    response.writeHead(404).end();
    return;
  }
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const data = Buffer.from(JSON.stringify(JSON.parse(Buffer.concat(parts).toString())));
    for (const client of sockets.clients) client.send(data, { binary: false });
    response.writeHead(200, { 'Content-Type': 'application/json' }).end('{"published":true}');
  });
});

server.on('upgrade', (request, socket, head) => {
  sockets.handleUpgrade(request, socket, head, () => {});
});

server.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 4096 });
