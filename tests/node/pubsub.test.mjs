// Pub/sub with ioredis and node-redis, in both protocols.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { host, keys, port, taggedKeys } from './server.mjs';

/** Messages in the order they come; next() waits for one. */
class Inbox {
  #got = [];
  #waiting = [];

  put = (...message) => {
    const taker = this.#waiting.shift();
    if (taker) taker(message);
    else this.#got.push(message);
  };

  next() {
    if (this.#got.length) return Promise.resolve(this.#got.shift());
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  async take(count) {
    const all = [];
    while (all.length < count) all.push(await this.next());
    return all;
  }

  get left() {
    return this.#got.length;
  }
}

for (const [name, options] of [
  ['RESP2', { protocol: 2 }],
  ['RESP3', { protocol: 3 }],
]) {
  describe(`pub/sub, ioredis, ${name}`, () => {
    /** A test with a publisher and a subscriber. */
    const withTwo = (about, body) =>
      test(about, async () => {
        const r = new Redis({ host, port, ...options });
        const sub = new Redis({ host, port, ...options });
        try {
          await body(r, sub);
        } finally {
          r.disconnect();
          sub.disconnect();
        }
      });

    withTwo('channels and patterns', async (r, sub) => {
      const k = keys();
      const [messages, pmessages] = [new Inbox(), new Inbox()];
      sub.on('message', messages.put);
      sub.on('pmessage', pmessages.put);
      assert.equal(await sub.subscribe(k('a'), k('b')), 2);
      assert.equal(await sub.psubscribe(k('a*')), 3);
      assert.equal(await r.publish(k('a'), 'größe'), 2);
      assert.equal(await r.publish(k('b'), ''), 1);
      assert.equal(await r.publish(k('ab'), '3'), 1);
      assert.equal(await r.publish(k('nobody'), '4'), 0);
      assert.deepEqual(
        (await messages.take(2)).sort(),
        [[k('a'), 'größe'], [k('b'), '']],
      );
      assert.deepEqual(
        (await pmessages.take(2)).sort(),
        [[k('a*'), k('a'), 'größe'], [k('a*'), k('ab'), '3']],
      );
      assert.equal(await sub.unsubscribe(k('a'), k('b')), 1);
      assert.equal(await sub.punsubscribe(k('a*')), 0);
      assert.equal(await r.publish(k('a'), 'late'), 0);
      // an ordinary connection again
      assert.equal(await sub.set(k(), 'v'), 'OK');
      assert.equal(messages.left + pmessages.left, 0);
    });

    withTwo('buffers', async (r, sub) => {
      const k = keys();
      const inbox = new Inbox();
      const bytes = Buffer.concat([Buffer.from([...Array(256).keys()]), Buffer.alloc(1 << 20, '\r\n')]);
      sub.on('messageBuffer', inbox.put);
      await sub.subscribe(k('a'));
      assert.equal(await r.publish(k('a'), bytes), 1);
      assert.deepEqual(await inbox.next(), [Buffer.from(k('a')), bytes]);
    });

    withTwo('in order, from a pipeline and from MULTI', async (r, sub) => {
      const k = keys();
      const inbox = new Inbox();
      sub.on('message', inbox.put);
      await sub.subscribe(k('a'));
      const p = r.pipeline();
      for (let i = 0; i < 500; i++) p.publish(k('a'), i);
      assert.deepEqual(await p.exec(), Array(500).fill([null, 1]));
      const got = await inbox.take(500);
      assert.deepEqual(got.map(([, data]) => data), [...Array(500).keys()].map(String));
      assert.deepEqual(
        await r.multi().set(k(), 'v').publish(k('a'), 'multi').exec(),
        [[null, 'OK'], [null, 1]],
      );
      assert.deepEqual(await inbox.next(), [k('a'), 'multi']);
    });

    withTwo('a subscribed connection that is killed subscribes again', async (r, sub) => {
      const k = keys();
      const [messages, pmessages] = [new Inbox(), new Inbox()];
      sub.on('message', messages.put);
      sub.on('pmessage', pmessages.put);
      const id = await sub.client('ID');
      await sub.subscribe(k('a'));
      await sub.psubscribe(k('p*'));
      const closed = once(sub, 'close');
      assert.equal(await r.client('KILL', 'ID', id), 1);
      await closed;
      while (messages.left === 0 || pmessages.left === 0) {
        await r.publish(k('a'), 'again');
        await r.publish(k('pq'), 'again');
        await sleep(5);
      }
      assert.deepEqual(await messages.next(), [k('a'), 'again']);
      assert.deepEqual(await pmessages.next(), [k('p*'), k('pq'), 'again']);
    });

    withTwo('shard channels', async (r, sub) => {
      const k = taggedKeys();
      const inbox = new Inbox();
      sub.on('smessage', inbox.put);
      assert.equal(await sub.ssubscribe(k('a'), k('b')), 2);
      assert.equal(await r.spublish(k('a'), '1'), 1);
      assert.equal(await r.publish(k('a'), 'not for shard channels'), 0);
      assert.deepEqual(await inbox.next(), [k('a'), '1']);
      assert.equal(await sub.sunsubscribe(k('a')), 1);
      assert.equal(await r.spublish(k('a'), '2'), 0);
      assert.equal(await r.spublish(k('b'), '3'), 1);
      assert.deepEqual(await inbox.next(), [k('b'), '3']);
    });
  });
}

for (const [name, options] of [
  ['RESP2', { RESP: 2 }],
  ['RESP3', { RESP: 3 }],
]) {
  describe(`pub/sub, node-redis, ${name}`, () => {
    const withTwo = (about, body) =>
      test(about, async () => {
        const r = createClient({ url: `redis://${host}:${port}`, ...options });
        const sub = r.duplicate();
        const errors = [];
        r.on('error', (error) => errors.push(error));
        sub.on('error', (error) => errors.push(error));
        await Promise.all([r.connect(), sub.connect()]);
        try {
          await body(r, sub, errors);
          assert.deepEqual(errors, []);
        } finally {
          r.destroy();
          sub.destroy();
        }
      });

    withTwo('channels and patterns, a listener for each', async (r, sub) => {
      const k = keys();
      const [a, b, p] = [new Inbox(), new Inbox(), new Inbox()];
      await sub.subscribe(k('a'), a.put);
      await sub.subscribe([k('a'), k('b')], b.put);
      await sub.pSubscribe(k('a*'), p.put);
      assert.equal(await r.publish(k('a'), 'größe'), 2);
      assert.equal(await r.publish(k('b'), ''), 1);
      assert.deepEqual(await a.next(), ['größe', k('a')]);
      assert.deepEqual((await b.take(2)).sort(), [['', k('b')], ['größe', k('a')]]);
      assert.deepEqual(await p.next(), ['größe', k('a')]);
      await sub.unsubscribe(k('a'));
      assert.equal(await r.publish(k('a'), 'only the pattern'), 1);
      assert.deepEqual(await p.next(), ['only the pattern', k('a')]);
      await sub.unsubscribe();
      await sub.pUnsubscribe();
      assert.equal(await r.publish(k('a'), 'late'), 0);
      // an ordinary connection again (in RESP2, node-redis 6 goes on giving Buffers)
      assert.equal(String(await sub.set(k(), 'v')), 'OK');
      assert.equal(a.left + b.left + p.left, 0);
    });

    withTwo('buffers', async (r, sub) => {
      const k = keys();
      const inbox = new Inbox();
      const bytes = Buffer.concat([Buffer.from([...Array(256).keys()]), Buffer.alloc(1 << 20, '\r\n')]);
      await sub.subscribe(k('a'), inbox.put, true);
      assert.equal(await r.publish(k('a'), bytes), 1);
      assert.deepEqual(await inbox.next(), [bytes, Buffer.from(k('a'))]);
    });

    withTwo('shard channels', async (r, sub) => {
      const k = keys();
      const inbox = new Inbox();
      for (let i = 0; i < 10; i++) await sub.sSubscribe(k(`s${i}`), inbox.put);
      for (let i = 0; i < 10; i++) {
        assert.equal(await r.sPublish(k(`s${i}`), String(i)), 1);
        assert.deepEqual(await inbox.next(), [String(i), k(`s${i}`)]);
      }
      await sub.sUnsubscribe(k('s0'));
      assert.equal(await r.sPublish(k('s0'), 'late'), 0);
      assert.equal(await r.sPublish(k('s1'), 'still'), 1);
      assert.deepEqual(await inbox.next(), ['still', k('s1')]);
    });

    withTwo('a subscribed connection that is killed subscribes again', async (r, sub, errors) => {
      const k = keys();
      const inbox = new Inbox();
      const id = await sub.clientId();
      await sub.subscribe(k('a'), inbox.put);
      await sub.pSubscribe(k('p*'), inbox.put);
      await sub.sSubscribe(k('s'), inbox.put);
      const readyAgain = new Promise((resolve) => sub.once('ready', resolve));
      assert.equal(await r.sendCommand(['CLIENT', 'KILL', 'ID', String(id)]), 1);
      await readyAgain;
      errors.length = 0; // it was told of the end
      assert.equal(await r.publish(k('a'), '1'), 1);
      assert.deepEqual(await inbox.next(), ['1', k('a')]);
      assert.equal(await r.publish(k('pq'), '2'), 1);
      assert.deepEqual(await inbox.next(), ['2', k('pq')]);
      assert.equal(await r.sPublish(k('s'), '3'), 1);
      assert.deepEqual(await inbox.next(), ['3', k('s')]);
    });

    withTwo('who listens', async (r, sub) => {
      const k = taggedKeys();
      await sub.subscribe([k('a'), k('b')], () => {});
      await sub.sSubscribe(k('s'), () => {});
      const pattern = k('*').replace('{', '\\{');
      assert.deepEqual([...(await r.pubSubChannels(pattern))].sort(), [k('a'), k('b')]);
      assert.deepEqual([...(await r.pubSubShardChannels(pattern))], [k('s')]);
      assert.deepEqual({ ...(await r.pubSubNumSub([k('a'), k('c')])) }, { [k('a')]: 1, [k('c')]: 0 });
      assert.deepEqual({ ...(await r.pubSubShardNumSub([k('s')])) }, { [k('s')]: 1 });
    });
  });
}

test('pub/sub: ordinary commands beside subscriptions in RESP3', async () => {
  const k = keys();
  const inbox = new Inbox();
  const r = createClient({ url: `redis://${host}:${port}`, RESP: 3 });
  r.on('error', (e) => assert.fail(e));
  await r.connect();
  try {
    await r.subscribe(k('a'), inbox.put);
    for (let i = 0; i < 100; i++) {
      const [count, n] = await Promise.all([r.publish(k('a'), String(i)), r.incr(k('n'))]);
      assert.deepEqual([count, n], [1, i + 1]);
    }
    const got = await inbox.take(100);
    assert.deepEqual(got.map(([data]) => data), [...Array(100).keys()].map(String));
  } finally {
    r.destroy();
  }
});
