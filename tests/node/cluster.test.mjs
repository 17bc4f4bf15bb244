// Node clients that speak to a Redis Cluster, pointed at slotway: they see one node.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Cluster } from 'ioredis';
import { createCluster, defineScript } from 'redis';
import { host, keys, port } from './server.mjs';

for (const [name, options] of [
  ['defaults', {}],
  ['reading from replicas', { scaleReads: 'slave' }],
  ['auto-pipelining', { enableAutoPipelining: true }],
]) {
  describe(`ioredis' Cluster, ${name}`, () => {
    let r;
    before(async () => {
      r = new Cluster([{ host, port }], { slotsRefreshTimeout: 5000, ...options });
      assert.equal(await r.ping(), 'PONG');
    });
    after(() => r.disconnect());

    test('commands all over the slots', async () => {
      const k = keys();
      const numbers = [...Array(300).keys()];
      await Promise.all(numbers.map((i) => r.set(k(`k${i}`), i)));
      const got = await Promise.all(numbers.map((i) => r.get(k(`k${i}`))));
      assert.deepEqual(got, numbers.map(String));
      assert.equal(await r.hset(k('h'), { a: 1 }), 1);
      assert.equal(await r.incrby(k('n'), 42), 42);
      await assert.rejects(r.lpush(k('h'), 'x'), /WRONGTYPE/);
    });

    test('its view of the cluster', async () => {
      assert.equal(r.nodes('master').length, 1);
      assert.equal(r.nodes('slave').length, 0);
    });

    test('a command defined in Lua', async () => {
      const k = keys();
      r.defineCommand('addTwice', {
        numberOfKeys: 1,
        lua: `redis.call('INCRBY', KEYS[1], ARGV[1]); return redis.call('INCRBY', KEYS[1], ARGV[1])
          -- ${k()}`,
      });
      for (let i = 0; i < 20; i++) assert.equal(await r.addTwice(k(`n${i}`), 5), 10);
    });
  });
}

const append = defineScript({
  NUMBER_OF_KEYS: 1,
  SCRIPT: `return redis.call('APPEND', KEYS[1], ARGV[1]) -- ${keys()()}`,
  parseCommand(parser, key, text) {
    parser.pushKey(key);
    parser.push(text);
  },
  transformReply: (reply) => reply,
});

for (const [name, options] of [
  ['defaults', {}],
  ['RESP2', { defaults: { RESP: 2 }, RESP: 2 }],
  ['RESP3', { RESP: 3 }],
  ['reading from replicas', { useReplicas: true }],
]) {
  describe(`node-redis' createCluster, ${name}`, () => {
    let r;
    before(async () => {
      r = createCluster({
        rootNodes: [{ url: `redis://${host}:${port}` }],
        scripts: { append },
        ...options,
      });
      r.on('error', (e) => assert.fail(e));
      await r.connect();
    });
    after(() => r.destroy());

    test('commands all over the slots', async () => {
      const k = keys();
      const numbers = [...Array(300).keys()];
      await Promise.all(numbers.map((i) => r.set(k(`k${i}`), String(i))));
      const got = await Promise.all(numbers.map((i) => r.get(k(`k${i}`))));
      assert.deepEqual(got, numbers.map(String));
      assert.equal(await r.hSet(k('h'), { a: '1' }), 1);
      await assert.rejects(r.lPush(k('h'), 'x'), /WRONGTYPE/);
    });

    test('its view of the cluster', async () => {
      assert.equal(r.masters.length, 1);
      assert.equal(r.replicas.length, 0);
      assert.deepEqual([r.masters[0].host, r.masters[0].port], [host, port]);
    });

    test('scripts by hash', async () => {
      const k = keys();
      for (let i = 0; i < 20; i++) assert.equal(await r.append(k(`n${i}`), 'ab'), 2);
    });
  });
}
