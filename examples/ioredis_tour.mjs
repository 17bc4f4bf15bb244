// What Node programs do with Redis, through slotway: a few lines for each thing.
//
//     make run                              # in one terminal: a cluster and slotway
//     make setup                            # once, for ioredis
//     node examples/ioredis_tour.mjs [HOST:PORT]                 # in another one
//
// Nothing here is special to slotway or to a cluster but the {braces} in some keys' names. It runs
// the same against a single redis-server. All keys start with "tour:" and are gone at the end.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';

const address = process.argv[2] ?? process.env.TOUR_ADDR ?? '127.0.0.1:6380';
const [, host, port] = address.match(/^(.*):(\d+)$/);

/** One connection; commands of the whole program share it. */
const r = new Redis({ host, port: Number(port) });

const tour = {
  'Connecting: one client for the whole program': async () => {
    assert.equal(await r.ping(), 'PONG');
    // the same as a URL, as it stands in most settings files
    const second = new Redis(`redis://${host}:${port}/0`);
    assert.equal(await second.ping(), 'PONG');
    await second.quit();
    // Commands that are given without waiting for each other travel together.
    await Promise.all(Array.from({ length: 400 }, () => r.incr('tour:visits')));
    console.log('counted at once:', await r.get('tour:visits'), 'visits');
    assert.equal(await r.get('tour:visits'), '400');
  },

  'Strings: text, numbers, bytes': async () => {
    await r.set('tour:greeting', 'hello');
    await r.append('tour:greeting', ', world');
    assert.equal(await r.get('tour:greeting'), 'hello, world');
    assert.equal(await r.get('tour:nothing'), null);
    assert.equal(await r.set('tour:greeting', 'again', 'NX'), null); // only if it is not there

    assert.equal(await r.incrby('tour:stock', 10), 10);
    assert.equal(await r.decr('tour:stock'), 9);

    // many keys at once; they may be all over the cluster
    await r.mset({ 'tour:user:1': 'Ada', 'tour:user:2': 'Grace' });
    const users = await r.mget('tour:user:1', 'tour:user:2', 'tour:user:3');
    assert.deepEqual(users, ['Ada', 'Grace', null]);
    console.log('users:', users);

    // a Buffer goes in as it is; …Buffer commands give one back
    const bytes = Buffer.from([0, 127, 128, 255]);
    await r.set('tour:bytes', bytes);
    assert.deepEqual(await r.getBuffer('tour:bytes'), bytes);
    console.log('bytes come back as they were:', await r.getBuffer('tour:bytes'));
  },

  'Lists: a queue': async () => {
    await r.rpush('tour:queue', 'first', 'second', 'third');
    assert.deepEqual(await r.lrange('tour:queue', 0, -1), ['first', 'second', 'third']);
    assert.equal(await r.lpop('tour:queue'), 'first');
    assert.equal(await r.llen('tour:queue'), 2);
    // A worker waits for the next job; null after a second without one. It waits on a connection
    // of its own, because what is sent after it on the same one waits as well.
    const worker = r.duplicate();
    assert.deepEqual(await worker.blpop('tour:queue', 1), ['tour:queue', 'second']);
    await worker.quit();
    // Commands with several keys need them in one place: what is in {braces} decides where.
    await r.rpush('tour:{jobs}:waiting', 'job 1');
    await r.lmove('tour:{jobs}:waiting', 'tour:{jobs}:running', 'LEFT', 'RIGHT');
    const running = await r.lrange('tour:{jobs}:running', 0, -1);
    assert.deepEqual(running, ['job 1']);
    console.log('running:', running);
  },

  'Hashes: a record with fields': async () => {
    await r.hset('tour:book:1', { title: 'Notes', author: 'Ada', sold: 0 });
    assert.equal(await r.hincrby('tour:book:1', 'sold', 3), 3);
    assert.equal(await r.hget('tour:book:1', 'title'), 'Notes');
    const book = { ...(await r.hgetall('tour:book:1')) };
    assert.deepEqual(book, { title: 'Notes', author: 'Ada', sold: '3' });
    console.log('a book:', book);
  },

  'Sets: tags, and what they have in common': async () => {
    await r.sadd('tour:{tags}:node', 'ioredis', 'jest', 'express');
    await r.sadd('tour:{tags}:testing', 'pytest', 'jest');
    assert.equal(await r.sismember('tour:{tags}:node', 'express'), 1);
    const both = [...(await r.sinter('tour:{tags}:node', 'tour:{tags}:testing'))];
    assert.deepEqual(both, ['jest']);
    console.log('node and testing:', both);
  },

  'Sorted sets: a leader board': async () => {
    await r.zadd('tour:points', 30, 'Ada', 50, 'Grace', 20, 'Edsger');
    await r.zincrby('tour:points', 25, 'Ada');
    const ahead = await r.zrange('tour:points', 0, 1, 'REV');
    assert.deepEqual(ahead, ['Ada', 'Grace']);
    assert.equal(await r.zrevrank('tour:points', 'Edsger'), 2);
    console.log('ahead:', ahead);
  },

  'JSON: values with a structure': async () => {
    const order = { id: 7, items: ['tea', 'milk'], paid: false };
    await r.set('tour:order:7', JSON.stringify(order));
    assert.deepEqual(JSON.parse(await r.get('tour:order:7')), order);
    console.log('an order:', await r.get('tour:order:7'));
  },

  'Expiry: keys that go by themselves': async () => {
    await r.set('tour:code', '123456', 'EX', 300);
    const left = await r.ttl('tour:code');
    assert.ok(left > 290 && left <= 300);
    await r.persist('tour:code');
    assert.equal(await r.ttl('tour:code'), -1); // it stays; -2 would be: there is no such key
    await r.set('tour:blink', '!', 'PX', 20);
    while (await r.exists('tour:blink')) await sleep(10);
    console.log('the key that was set for 20 ms is gone');
  },

  'Errors, and connections that break': async () => {
    await r.set('tour:text', 'not a number');
    await assert.rejects(r.incr('tour:text'), (error) => {
      console.log('the server says:', error.message);
      return error.name === 'ReplyError';
    });

    // A connection that breaks is opened again by the client itself.
    const patient = new Redis({ host, port: Number(port), maxRetriesPerRequest: 5 });
    const id = await patient.client('ID');
    const openAgain = new Promise((resolve) => patient.once('close', () => patient.once('ready', resolve)));
    assert.equal(await r.client('KILL', 'ID', id), 1);
    await openAgain;
    assert.equal(await patient.ping(), 'PONG');
    await patient.quit();
    console.log('the connection was killed; the next command went well');

    const nobody = new Redis({ host, port: 1, lazyConnect: true, retryStrategy: null });
    nobody.on('error', (error) => console.log('nobody there:', error.message));
    await assert.rejects(nobody.ping());
  },

  'Pipelines: many commands in one go': async () => {
    // pipeline() only saves round trips
    const many = r.pipeline();
    for (let i = 0; i < 1000; i++) many.set(`tour:item:${i}`, i);
    const replies = await many.exec();
    assert.equal(replies.length, 1000);
    assert.ok(replies.every(([error, reply]) => error === null && reply === 'OK'));

    // multi() is MULTI … EXEC: nobody else's commands come in between. Its keys belong in one
    // place (braces) for this to hold for all of them.
    const paid = await r.multi().decrby('tour:{bank}:ada', 10).incrby('tour:{bank}:grace', 10).exec();
    assert.deepEqual(paid, [[null, -10], [null, 10]]);

    // One command's error does not stop the others; it stands in its place.
    const [[wrong], [, value]] = await r.pipeline().lpush('tour:item:0', 'x').get('tour:item:0').exec();
    assert.ok(wrong instanceof Error);
    assert.equal(value, '0');
    console.log('1,000 keys in one go; then:', wrong.message);
  },

  'WATCH: change a value only if nobody else has': async () => {
    // on a connection of its own, because what is watched belongs to the connection
    const own = r.duplicate();
    await r.set('tour:seats', 2);

    async function takeASeat(comeInBetween) {
      await own.watch('tour:seats');
      const seats = Number(await own.get('tour:seats'));
      await comeInBetween?.();
      return own.multi().set('tour:seats', seats - 1).exec(); // null: somebody came in between
    }

    assert.deepEqual(await takeASeat(), [[null, 'OK']]);
    assert.equal(await takeASeat(() => r.set('tour:seats', 0)), null);
    assert.equal(await r.get('tour:seats'), '0');
    await own.quit();
    console.log('the seat was taken by somebody else; nothing was changed');
  },

  'Lua: several steps as one, on the server': async () => {
    // All keys a script touches are passed as KEYS, and lie in one place.
    r.defineCommand('tourTake', {
      numberOfKeys: 1,
      lua: `
        local left = tonumber(redis.call('GET', KEYS[1]) or '0')
        if left < tonumber(ARGV[1]) then return -1 end
        return redis.call('DECRBY', KEYS[1], ARGV[1])
      `,
    });
    await r.set('tour:tickets', 5);
    assert.equal(await r.tourTake('tour:tickets', 3), 2);
    assert.equal(await r.tourTake('tour:tickets', 3), -1);
    console.log('tickets left:', await r.get('tour:tickets'));
  },

  'Streams: workers share what comes in, and nothing is lost when one fails': async () => {
    await r.xgroup('CREATE', 'tour:events', 'mailers', '0', 'MKSTREAM');
    for (let n = 0; n < 4; n++) await r.xadd('tour:events', 'MAXLEN', '~', 1000, '*', 'mail', n);

    const read = async (worker, ...options) => {
      const from = ['STREAMS', 'tour:events', '>'];
      const streams = await r.xreadgroup('GROUP', 'mailers', worker, ...options, ...from);
      return streams === null ? [] : entriesOf(streams);
    };
    const done = (entries) => r.xack('tour:events', 'mailers', ...entries.map(([id]) => id));
    const mails = (entries) => entries.map(([, [, mail]]) => mail);

    const first = await read('anna', 'COUNT', 2);
    const second = await read('bert', 'COUNT', 2);
    assert.deepEqual(mails([...first, ...second]), ['0', '1', '2', '3']);
    assert.equal(await done(first), 2);
    // bert never says that he is done, so anna takes over what he had
    const [, taken] = await r.xautoclaim('tour:events', 'mailers', 'anna', 0, '0');
    assert.deepEqual(taken, second);
    assert.equal(await done(taken), 2);
    // a worker with nothing to do waits, here for 50 ms
    assert.deepEqual(await read('anna', 'BLOCK', 50), []);
    console.log("anna's mails, and bert's that she took over:", mails([...first, ...taken]));
  },

  'Pub/sub: whoever listens hears it, now or never': async () => {
    assert.equal(await r.publish('tour:news', 'nobody listens yet'), 0);

    // A subscriber has a connection of its own. A pattern hears all channels that match it.
    const heard = { reader: [], archive: [], late: [] };
    const [reader, archive, late] = [r.duplicate(), r.duplicate(), r.duplicate()];
    reader.on('message', (channel, message) => heard.reader.push(message));
    archive.on('pmessage', (pattern, channel, message) => heard.archive.push(message));
    late.on('message', (channel, message) => heard.late.push(message));
    const until = async (who, count) => {
      while (heard[who].length < count) await sleep(5);
    };

    // Until it is confirmed, messages may be missed; from then on, none is.
    await Promise.all([reader.subscribe('tour:news'), archive.psubscribe('tour:*')]);
    assert.equal(await r.publish('tour:news', 'hello'), 2);
    assert.equal(await r.publish('tour:weather', 'rain'), 1);
    await Promise.all([until('reader', 1), until('archive', 2)]);

    // What was published before is not kept (a stream would keep it).
    await late.subscribe('tour:news');
    await r.publish('tour:news', 'good night');
    await Promise.all([until('reader', 2), until('archive', 3), until('late', 1)]);
    assert.deepEqual(heard.reader, ['hello', 'good night']);
    assert.deepEqual([...heard.archive].sort(), ['good night', 'hello', 'rain']);
    assert.deepEqual(heard.late, ['good night']);
    await Promise.all([reader.quit(), archive.quit(), late.quit()]);
    console.log('heard:', heard);
  },

  'Locks: one at a time, over all machines': async () => {
    // It goes by itself after ten seconds if its holder dies; only its holder can release it.
    r.defineCommand('tourRelease', {
      numberOfKeys: 1,
      lua: `return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0`,
    });
    const acquire = (holder) => r.set('tour:lock:report', holder, 'PX', 10_000, 'NX');
    assert.equal(await acquire('anna'), 'OK');
    assert.equal(await acquire('bert'), null);
    assert.equal(await r.tourRelease('tour:lock:report', 'bert'), 0);
    assert.equal(await r.tourRelease('tour:lock:report', 'anna'), 1);
    assert.equal(await acquire('bert'), 'OK');
    console.log('the second one got the lock when the first had gone');
  },

  'A rate limiter: three requests a minute': async () => {
    async function allowed(user) {
      const key = `tour:rate:${user}:${Math.floor(Date.now() / 60_000)}`;
      const [[, count]] = await r.multi().incr(key).expire(key, 60).exec();
      return count <= 3;
    }
    const requests = async () => {
      const answers = [];
      for (let i = 0; i < 5; i++) answers.push(await allowed('ada'));
      return answers;
    };
    const expected = [true, true, true, false, false];
    let answers = await requests();
    if (answers.join() !== expected.join()) answers = await requests(); // a new minute began
    assert.deepEqual(answers, expected);
    console.log('five requests:', answers);
  },

  'Sessions: a hash for each visitor, gone half an hour after the last visit': async () => {
    async function visit(id, changes) {
      const key = `tour:session:${id}`;
      const p = r.multi();
      if (changes) p.hset(key, changes);
      const replies = await p.hgetall(key).expire(key, 1800).exec();
      return { ...replies.at(-2)[1] };
    }
    await visit('s1', { user: 'Ada' });
    assert.deepEqual(await visit('s1', { basket: 'tea' }), { user: 'Ada', basket: 'tea' });
    assert.deepEqual(await visit('s2'), {});
    assert.ok((await r.ttl('tour:session:s1')) > 1700);
    console.log('the session:', await visit('s1'));
  },

  'Cache-aside: ask Redis first, then the database': async () => {
    const asked = [];
    async function slowDatabase(id) {
      asked.push(id);
      return { id, name: 'Tea' };
    }
    async function product(id) {
      const key = `tour:cache:product:${id}`;
      const cached = await r.get(key);
      if (cached !== null) return JSON.parse(cached);
      const found = await slowDatabase(id);
      await r.set(key, JSON.stringify(found), 'EX', 60);
      return found;
    }
    assert.deepEqual(await product(1), await product(1));
    assert.deepEqual(asked, [1]);
    await r.unlink('tour:cache:product:1'); // the product has changed
    await product(1);
    assert.deepEqual(asked, [1, 1]);
    console.log('asked three times, the database was asked', asked.length, 'times');
  },
};

/** The entries of the one stream that was asked for. */
function entriesOf(streams) {
  const [[, entries]] = Array.isArray(streams) ? streams : Object.entries(streams);
  return entries;
}

/** All keys of the tour, bit by bit. */
async function removeAll() {
  let removed = 0;
  for await (const keys of r.scanStream({ match: 'tour:*', count: 1000 })) {
    for (const key of keys) removed += await r.unlink(key);
  }
  return removed;
}

function heading(text) {
  console.log(`\n${text}\n${'-'.repeat(text.length)}`);
}

try {
  await removeAll(); // what a tour that was broken off has left
  for (const [name, part] of Object.entries(tour)) {
    heading(name);
    await part();
  }
} finally {
  heading('Leaving: all keys with a pattern, bit by bit');
  console.log('removed', await removeAll(), 'keys');
  await r.quit();
}
