// What Node programs do with ioredis every day.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ReplyError, Redis } from 'ioredis';
import { host, keys, port, taggedKeys } from './server.mjs';

for (const [name, options] of [
  ['defaults', {}],
  ['RESP2', { protocol: 2 }],
  ['RESP3', { protocol: 3 }],
  ['auto-pipelining', { enableAutoPipelining: true }],
]) {
  describe(`ioredis, ${name}`, () => {
    let r;
    before(async () => {
      r = new Redis({ host, port, maxRetriesPerRequest: 3, ...options });
      assert.equal(await r.ping(), 'PONG');
    });
    after(() => r.disconnect());

    test('strings, counters, expiry', async () => {
      const k = keys();
      assert.equal(await r.get(k()), null);
      assert.equal(await r.set(k(), 'größe', 'EX', 1000), 'OK');
      assert.equal(await r.get(k()), 'größe');
      const ttl = await r.ttl(k());
      assert.ok(ttl > 900 && ttl <= 1000);
      assert.equal(await r.incr(k('n')), 1);
      assert.equal(await r.incrby(k('n'), 41), 42);
      assert.equal(await r.getdel(k()), 'größe');
      assert.equal(await r.set(k(), JSON.stringify({ a: [1, null] }), 'NX'), 'OK');
      assert.deepEqual(JSON.parse(await r.get(k())), { a: [1, null] });
    });

    test('binary values', async () => {
      const k = keys();
      const bytes = Buffer.from([...Array(256).keys()]);
      await r.set(k(), bytes);
      assert.deepEqual(await r.getBuffer(k()), bytes);
    });

    test('lists, hashes, sets, sorted sets', async () => {
      const k = taggedKeys();
      assert.equal(await r.rpush(k('l'), 'a', 'b', 'c'), 3);
      assert.deepEqual(await r.lrange(k('l'), 0, -1), ['a', 'b', 'c']);
      assert.equal(await r.lmove(k('l'), k('l2'), 'LEFT', 'LEFT'), 'a');
      assert.equal(await r.hset(k('h'), { name: 'Ada', born: 1815 }), 2);
      assert.deepEqual({ ...(await r.hgetall(k('h'))) }, { name: 'Ada', born: '1815' });
      assert.equal(await r.sadd(k('s'), 'x', 'y'), 2);
      assert.deepEqual([...(await r.smembers(k('s')))].sort(), ['x', 'y']);
      assert.equal(await r.zadd(k('z'), 2, 'two', 1, 'one'), 2);
      assert.deepEqual(await r.zrange(k('z'), 0, -1), ['one', 'two']);
      assert.equal(Number(await r.zscore(k('z'), 'two')), 2);
    });

    test('a pipeline over many slots, an error in the middle', async () => {
      const k = keys();
      const p = r.pipeline();
      for (let i = 0; i < 300; i++) p.set(k(`k${i}`), i);
      p.lpush(k('k7'), 'x');
      for (let i = 0; i < 300; i++) p.get(k(`k${i}`));
      const replies = await p.exec();
      assert.equal(replies.length, 601);
      assert.ok(replies[300][0] instanceof ReplyError);
      assert.match(replies[300][0].message, /^WRONGTYPE/);
      assert.deepEqual(
        replies.slice(301),
        [...Array(300).keys()].map((i) => [null, String(i)]),
      );
    });

    test('mget, mset, del, exists over many slots', async () => {
      const k = keys();
      const names = [...Array(200).keys()].map((i) => k(`k${i}`));
      assert.equal(await r.mset(Object.fromEntries(names.map((n, i) => [n, i]))), 'OK');
      assert.deepEqual(
        await r.mget(k('missing'), ...names),
        [null, ...names.map((_, i) => String(i))],
      );
      assert.equal(await r.exists(...names, k('missing')), 200);
      assert.equal(await r.del(...names), 200);
    });

    test('errors are ReplyError', async () => {
      const k = keys();
      await r.set(k(), 'text');
      await assert.rejects(r.incr(k()), (e) => e instanceof ReplyError && /not an integer/.test(e));
      await assert.rejects(r.call('NOSUCH', k()), /unknown command/);
      await assert.rejects(r.call('GET'), /wrong number of arguments/);
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

    test('streams', async () => {
      const k = keys();
      await r.xadd(k(), '1-1', 'f', 'v');
      await r.xgroup('CREATE', k(), 'g', '0');
      const read = await r.xreadgroup('GROUP', 'g', 'c', 'STREAMS', k(), '>');
      assert.match(JSON.stringify(read), /"1-1",\["f","v"\]/);
      assert.equal(await r.xack(k(), 'g', '1-1'), 1);
    });

    test('a thousand promises at once', async () => {
      const k = keys();
      const numbers = [...Array(1000).keys()];
      await Promise.all(numbers.map((i) => r.set(k(`k${i}`), i)));
      const got = await Promise.all(numbers.map((i) => r.get(k(`k${i}`))));
      assert.deepEqual(got, numbers.map(String));
    });
  });
}
