// The tour that newcomers read runs as it stands.

import { test } from 'node:test';
import { host, port } from './server.mjs';

test('ioredis tour', async () => {
  process.env.TOUR_ADDR = `${host}:${port}`;
  await import('../../examples/ioredis_tour.mjs');
});
