// Fastify with schemas for the body and the answer, so that both are checked and written by compiled code.
import fastify from 'fastify';

const app = fastify();

const article = { type: 'string', minLength: 1, maxLength: 100 };
const schema = {
  body: {
    type: 'object',
    required: ['article', 'quantity'],
    additionalProperties: false,
    properties: {
      article,
      quantity: { type: 'integer', minimum: 1, maximum: 1000 },
      express: { type: 'boolean', default: false },
    },
  },
  response: {
    200: {
      type: 'object',
      properties: {
        article,
        quantity: { type: 'integer' },
        express: { type: 'boolean' },
        total: { type: 'number' },
      },
    },
  },
};

app.post('/quote', { schema }, async (request) => {
  const { article, quantity, express } = request.body;
  let total = quantity * 12.5;
  if (express) total += 9.5;
  return { article, quantity, express, total };
});

await app.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 4096 });
