// What Node programs do with node-redis every day.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ErrorReply, RESP_TYPES, createClient, defineScript } from 'redis';
import { host, keys, port, taggedKeys } from './server.mjs';

const addTwice = defineScript({
  NUMBER_OF_KEYS: 1,
  SCRIPT: `redis.call('INCRBY', KEYS[1], ARGV[1])
    return redis.call('INCRBY', KEYS[1], ARGV[1]) -- ${keys()()}`,
  parseCommand(parser, key, by) {
    parser.pushKey(key);
    parser.push(String(by));
  },
  transformReply: (reply) => reply,
});

for (const [name, options] of [
  ['defaults', {}],
  ['RESP2', { RESP: 2 }],
  ['RESP3', { RESP: 3 }],
]) {
  describe(`node-redis, ${name}`, () => {
    let r;
    before(async () => {
      r = createClient({ url: `redis://${host}:${port}`, scripts: { addTwice }, ...options });
      r.on('error', (e) => assert.fail(e));
      await r.connect();
      assert.equal(await r.ping(), 'PONG');
    });
    after(() => r.close());

    test('strings, counters, expiry', async () => {
      const k = keys();
      assert.equal(await r.get(k()), null);
      assert.equal(await r.set(k(), 'größe', { EX: 1000 }), 'OK');
      assert.equal(await r.get(k()), 'größe');
      const ttl = await r.ttl(k());
      assert.ok(ttl > 900 && ttl <= 1000);
      assert.equal(await r.incrBy(k('n'), 42), 42);
      assert.equal(await r.getDel(k()), 'größe');
      assert.equal(await r.expire(k(), 10), 0);
    });

    test('binary values', async () => {
      const k = keys();
      const bytes = Buffer.from([...Array(256).keys()]);
      await r.set(k(), bytes);
      const buffers = r.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
      assert.deepEqual(await buffers.get(k()), bytes);
    });

    test('lists, hashes, sets, sorted sets', async () => {
      const k = taggedKeys();
      assert.equal(await r.rPush(k('l'), ['a', 'b', 'c']), 3);
      assert.deepEqual(await r.lRange(k('l'), 0, -1), ['a', 'b', 'c']);
      assert.equal(await r.hSet(k('h'), { name: 'Ada', born: 1815 }), 2);
      assert.deepEqual({ ...(await r.hGetAll(k('h'))) }, { name: 'Ada', born: '1815' });
      assert.equal(await r.sAdd(k('s'), ['x', 'y']), 2);
      assert.deepEqual([...(await r.sMembers(k('s')))].sort(), ['x', 'y']);
      assert.equal(
        await r.zAdd(k('z'), [
          { score: 2, value: 'two' },
          { score: 1.5, value: 'less' },
        ]),
        2,
      );
      assert.deepEqual(await r.zRangeWithScores(k('z'), 0, -1), [
        { value: 'less', score: 1.5 },
        { value: 'two', score: 2 },
      ]);
    });

    test('what is sent in one turn is one pipeline, replies in order', async () => {
      const k = keys();
      const numbers = [...Array(1000).keys()];
      const all = await Promise.all(
        numbers.flatMap((i) => [
          r.set(k(`k${i}`), String(i)),
          r.incr(k(`k${i}`)),
          r.get(k(`k${i}`)),
        ]),
      );
      assert.deepEqual(all, numbers.flatMap((i) => ['OK', i + 1, String(i + 1)]));
    });

    test('an error in the middle of a pipeline', async () => {
      const k = keys();
      const replies = await Promise.allSettled([
        r.set(k(), 'text'),
        r.lPush(k(), 'x'),
        r.get(k()),
      ]);
      assert.deepEqual(replies.map((p) => p.status), ['fulfilled', 'rejected', 'fulfilled']);
      assert.ok(replies[1].reason instanceof ErrorReply);
      assert.match(replies[1].reason.message, /^WRONGTYPE/);
      assert.equal(replies[2].value, 'text');
    });

    test('mget, mset, del, exists over many slots', async () => {
      const k = keys();
      const names = [...Array(200).keys()].map((i) => k(`k${i}`));
      assert.equal(await r.mSet(names.map((n, i) => [n, String(i)])), 'OK');
      assert.deepEqual(
        await r.mGet([k('missing'), ...names]),
        [null, ...names.map((_, i) => String(i))],
      );
      assert.equal(await r.exists([...names, k('missing')]), 200);
      assert.equal(await r.del(names), 200);
    });

    test('errors are ErrorReply', async () => {
      const k = keys();
      await r.set(k(), 'text');
      await assert.rejects(r.incr(k()), (e) => e instanceof ErrorReply && /not an integer/.test(e));
      await assert.rejects(r.sendCommand(['NOSUCH', k()]), /unknown command/);
    });

    test('scripts by hash', async () => {
      const k = keys();
      for (let i = 0; i < 20; i++) assert.equal(await r.addTwice(k(`n${i}`), 5), 10);
    });

    test('streams', async () => {
      const k = keys();
      assert.equal(await r.xAdd(k(), '1-1', { f: 'v' }), '1-1');
      await r.xGroupCreate(k(), 'g', '0');
      const read = await r.xReadGroup('g', 'c', { key: k(), id: '>' });
      assert.match(JSON.stringify(read), /"1-1"/);
      assert.equal(await r.xAck(k(), 'g', '1-1'), 1);
    });

    test('the server describes itself', async () => {
      assert.match(await r.info('server'), /redis_version:7\./);
      assert.ok((await r.clientId()) > 0);
      assert.equal(await r.clientSetName('billing'), 'OK');
      assert.equal(await r.clientGetName(), 'billing');
      assert.ok((await r.dbSize()) > 0);
    });
  });
}
