// Client-side caching: slotway refuses CLIENT TRACKING ON. node-redis sends that as it connects, and
// takes every error of a server for one that may pass: connect() tries again for as long as
// reconnectStrategy lets it. What an application sees of it, and the way out, are shown here; both
// are in docs/commands.md, *Client-side caching*.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient } from 'redis';
import { host, keys, port } from './server.mjs';

const REFUSED = /CLIENT TRACKING ON is not supported by this version of slotway.*switch client-side caching off/;
const options = { url: `redis://${host}:${port}`, RESP: 3 };
const clientSideCache = { ttl: 0, maxEntries: 0 };

test('connect() of a client with a cache says why, again and again, and never lies', async () => {
  const r = createClient({ ...options, clientSideCache });
  const said = [];
  const thrice = new Promise((resolve) => {
    r.on('error', (e) => said.push(e.message) === 3 && resolve());
  });
  let connected = false;
  const connecting = r.connect().then(() => (connected = true));
  await thrice;
  assert.ok(!connected && !r.isReady);
  for (const text of said) assert.match(text, REFUSED);
  r.destroy();
  await assert.rejects(connecting);
});

test('a reconnectStrategy that looks at the cause makes connect() reject', async () => {
  const refused = (cause) => /CLIENT TRACKING/.test(cause?.message);
  const reconnectStrategy = (retries, cause) => (refused(cause) ? cause : Math.min(retries * 50, 2000));
  const r = createClient({ ...options, clientSideCache, socket: { reconnectStrategy } });
  const said = [];
  r.on('error', (e) => said.push(e.message));
  await assert.rejects(r.connect(), (e) => REFUSED.test(e.originalError?.message ?? e.message));
  assert.equal(said.length, 1);
  assert.match(said[0], REFUSED);
  assert.ok(!r.isOpen);
});

test('without a cache the same client works', async () => {
  const r = createClient(options);
  r.on('error', (e) => assert.fail(e));
  await r.connect();
  const k = keys();
  assert.equal(await r.set(k(), 'value'), 'OK');
  assert.equal(await r.get(k()), 'value');
  await r.close();
});
