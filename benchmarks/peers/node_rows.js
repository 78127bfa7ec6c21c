// Node's http and pg-cursor: a thousand rows at a time, a write per row, waiting where the socket asks for it.
import { once } from 'node:events';
import { createServer } from 'node:http';
import pg from 'pg';
import Cursor from 'pg-cursor';

const SQL = 'SELECT id, device, temperature, price, active, at FROM readings ORDER BY id';
pg.types.setTypeParser(pg.types.builtins.INT8, Number);
pg.types.setTypeParser(pg.types.builtins.NUMERIC, Number);
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });

async function rows(response, gone) {
  const client = await pool.connect();
  const cursor = client.query(new Cursor(SQL));
  try {
    response.writeHead(200, {
      'Content-Type': 'application/x-ndjson; charset=utf-8',
      'Cache-Control': 'no-cache',
    });
    for (;;) {
      const batch = await cursor.read(1000);
      if (!batch.length) break;
      for (const row of batch) {
        if (!response.write(`${JSON.stringify(row)}\n`)) {
          await once(response, 'drain', { signal: gone });
        }
      }
    }
    response.end();
  } finally {
    await cursor.close();
    client.release();
  }
}

const server = createServer((request, response) => {
  if (request.url !== '/rows') {
    response.writeHead(404).end();
    return;
  }
  const leaving = new AbortController();
  response.on('close', () => leaving.abort());
  rows(response, leaving.signal).catch((error) => {
    if (error.name !== 'AbortError') response.destroy(error);
  });
});

server.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 4096 });
