// Where the server under test is: SLOTWAY_TEST_ADDR=host:port, something that runs already.
// `python3 tests/python/servers.py npm --prefix tests/node test` starts a cluster and slotway.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';

const addr = process.env.SLOTWAY_TEST_ADDR;
assert.ok(addr, 'SLOTWAY_TEST_ADDR=host:port is not set');
const colon = addr.lastIndexOf(':');

export const host = addr.slice(0, colon);
export const port = Number(addr.slice(colon + 1));

/** A maker of key names that no other test has, all over the slots. */
export function keys() {
  const mark = randomBytes(6).toString('hex');
  return (name = 'k') => `${name}:${mark}`;
}

/** The same, all in one slot. */
export function taggedKeys() {
  const mark = randomBytes(6).toString('hex');
  return (name = 'k') => `{${mark}}${name}`;
}
