
'use strict';
// The script of the status page: fetches /status.json every second and displays it. Foreign text is
// inserted as text nodes (el, text), never as markup.

// ---- the document ----

const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

/** Creates an element with attributes, event listeners ("onclick") and children. */
function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== null && child !== ''));
  return node;
}

/** Sets the text of a node only if it changes, so that the user's selection is kept. */
function text(node, value) {
  const words = String(value ?? '');
  if (node.textContent !== words) node.textContent = words;
}

/** Replaces the children of a node by those that `make` returns, only if `what` has changed. */
const shownIn = new WeakMap();
function replace(node, what, make) {
  const mark = JSON.stringify(what);
  if (shownIn.get(node) === mark) return;
  shownIn.set(node, mark);
  node.replaceChildren(...[make()].flat());
}

// ---- numbers ----

const units = (base, names) => (n) => {
  let i = 0;
  while (Math.abs(n) >= base * 0.9995 && i < names.length - 1) { n /= base; i += 1; }
  const digits = i === 0 ? (n > 0 && n < 10 && n % 1 !== 0 ? 1 : 0) : n < 9.995 ? 2 : n < 99.95 ? 1 : 0;
  return [n.toFixed(digits), names[i]];
};
const count = units(1000, ['', 'k', 'M', 'G']);
const size = units(1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
const time = units(1000, ['µs', 'ms', 's']);
const joined = (split) => (n) => n === null || n === undefined ? '–' : split(n).filter(Boolean).join(' ');
const si = joined((n) => { const [v, u] = count(n); return [v + u]; });
const bytes = joined(size);
const micros = joined(time);
const plural = (n, one, many = `${one}s`) => `${si(n)} ${n === 1 ? one : many}`;
const clock = (millis) => new Date(millis).toLocaleTimeString([], { hour12: false });

function duration(seconds) {
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const at = Math.max(0, parts.findIndex(([length]) => seconds >= length));
  const [length, unit] = seconds < 1 ? [1, 's'] : parts[at];
  const whole = Math.floor(seconds / length);
  const next = parts[at + 1];
  const rest = next && seconds >= 60 ? Math.floor((seconds % length) / next[0]) : 0;
  return `${whole} ${unit}${rest ? ` ${rest} ${next[1]}` : ''}`;
}

// ---- requests ----

let token = sessionStorage.getItem('slotway-token') ?? '';

// Paths that slotway does not have, kept because browsers log an error for each 404.
const absent = new Set();

class Refused extends Error {}

/** Fetches a JSON document of slotway; null if there is no such document. */
async function ask(path) {
  const page = path.split('?')[0];
  if (absent.has(page)) return null;
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: 'no-store', signal: AbortSignal.timeout(8000) });
  if (answer.status === 401) throw new Refused();
  if (answer.status === 404) {
    absent.add(page);
    return null;
  }
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function login(wrong) {
  const dialog = $('login');
  text($('login-error'), wrong ? 'Wrong token.' : '');
  if (!dialog.open) dialog.showModal();
  $('token').select();
}

$('login').addEventListener('cancel', (event) => event.preventDefault());
$('login-form').addEventListener('submit', (event) => {
  event.preventDefault();
  token = $('token').value.trim();
  sessionStorage.setItem('slotway-token', token);
  $('login').close();
  begin();
});

// ---- tiles ----

const TILES = [
  ['ops', 'Commands per second', (s) => [si(s.totals.ops), '/s'], (s) => `${si(s.totals.commands)} since the start`],
  ['latency', 'Latency (median)', (s) => s.totals.p50 === null ? ['–', ''] : time(s.totals.p50),
    (s) => `p99 ${micros(s.totals.p99)} · p99.9 ${micros(s.totals.p999)}`],
  ['errors', 'Errors per second', (s) => [si(s.totals.errors + s.totals.refused), '/s'],
    (s) => `${si(s.totals.refused)} of them slotway's own`],
  ['clients', 'Clients', (s) => [si(s.totals.clients), ''],
    (s) => `limit ${si(s.limits.clients)}, ${si(s.totals.clients_blocked)} blocked, ${si(s.totals.subscribers)} subscribed`],
  ['bytes', 'From and to clients', (s) => size(s.totals.received + s.totals.sent).map((w, i) => i ? `${w}/s` : w),
    (s) => `${bytes(s.totals.received)} in, ${bytes(s.totals.sent)} out`],
  ['process', 'CPU of the process', (s) => [Math.round(s.totals.cpu), '%'],
    (s) => `${plural(s.workers.running, 'worker')}, ${bytes(s.totals.memory)} memory`],
];

const tiles = TILES.map(([id, what, value, more]) => {
  const number = el('span'), unit = el('small'), line = el('p', { class: 'more' });
  const tile = el('div', { class: 'tile', id: `tile-${id}` },
    el('p', { class: 'what' }, what), el('p', { class: 'value' }, number, unit), line);
  $('tiles').append(tile);
  return (s) => {
    const [words, of] = value(s);
    text(number, words);
    text(unit, of);
    text(line, more(s));
  };
});

// ---- the head ----

function showHead(s) {
  const words = s.draining ? '▼ draining' : s.ready ? '● ready' : '▲ not ready';
  const badge = $('ready');
  badge.className = `pill ${s.draining ? 'warn' : s.ready ? 'good' : 'bad'}`;
  text(badge, words);
  text($('version'), s.version);
  text($('facts'), `up ${duration(s.uptime)} · pid ${s.pid}`);
  document.title = `${s.ready ? '' : '▲ '}slotway · ${si(s.totals.ops)}/s`;
  const trouble = $('trouble');
  const slots = s.missing_slots.length ? ` (slots ${s.missing_slots.slice(0, 8).join(', ')}${s.missing_slots.length > 8 ? ' …' : ''})` : '';
  text(trouble, s.ready ? '' : `▲ ${s.reasons.join('; ')}${slots}`);
  trouble.hidden = s.ready;
  $('tile-errors').classList.toggle('bad', s.totals.errors + s.totals.refused > 0);
}

// ---- the cluster ----

const STATES = {
  ok: ['good', '● online'], failed: ['bad', '✕ failed'], unreached: ['bad', '▲ not reached'],
  unreachable: ['warn', '▲ not reached'], loading: ['warn', '◐ loading'], link_down: ['warn', '▲ link down'],
  syncing: ['warn', '◐ syncing'], silent: ['warn', '▲ silent'], behind: ['warn', '▲ behind'],
};
const rangeWords = (slots) => slots.map(([from, to]) => from === to ? from : `${from}–${to}`).join(', ');
let nodes = new Map();

function showCluster(s) {
  const all = s.shards.flatMap((shard) => shard.nodes);
  const missing = s.topology.slots - s.topology.covered;
  const covered = missing === 0 ? 'all slots covered' : `${missing} slots without a primary`;
  // Without an age, one of several upstreams has never answered.
  const refreshed = s.topology.age === null ? (s.topology.error ?? 'not all upstreams have answered')
    : `refreshed ${duration(s.topology.age)} ago`;
  text($('cluster-facts'), s.topology.generation === 0 ? (s.topology.error ?? 'no seed has answered yet')
    : `${plural(s.shards.length, 'shard')}, ${plural(all.length, 'node')}, ${covered}; ${refreshed}`);
  const form = s.shards.map((shard) => [shard.slots, shard.upstream, shard.nodes.map((node) => [node.addr, node.name, node.role, node.zone])]);
  const upstreams = [...new Set(s.shards.map((shard) => shard.upstream))];
  replace($('slots'), form.map(([slots, upstream]) => [slots, upstream]),
    () => s.shards.flatMap((shard, i) => slotBar(shard, i, upstreams)));
  $('slots').setAttribute('aria-label', s.shards.map((shard, i) => `shard ${i + 1}: slots ${rangeWords(shard.slots)}${of(shard)}`).join('; '));
  replace($('shards'), form, () => {
    nodes = new Map();
    return s.shards.map(shardCard);
  });
  const busiest = Math.max(1, ...all.map((node) => node.ops));
  for (const node of all) nodes.get(node.addr)?.(node, busiest);
}

const of = (shard) => shard.upstream ? ` of ${shard.upstream}` : '';

function slotBar(shard, index, upstreams) {
  const [before, whole] = [upstreams.indexOf(shard.upstream) * 16384, upstreams.length * 163.84];
  return shard.slots.map(([from, to]) => {
    const bar = el('span', { class: `s${index % 6}`, title: `shard ${index + 1}: slots ${from}–${to}${of(shard)}` },
      to - from > 500 ? String(index + 1) : '');
    bar.style.left = `${(before + from) / whole}%`;
    bar.style.width = `${(to - from + 1) / whole}%`;
    return bar;
  });
}

function shardCard(shard, index) {
  const range = rangeWords(shard.slots);
  return el('article', { class: 'shard', 'aria-label': `Shard ${index + 1}` },
    el('header', {}, el('span', { class: `mark s${index % 6}`, 'aria-hidden': 'true' }, String(index + 1)),
      el('h3', {}, `${shard.count} ${shard.count === 1 ? 'slot' : 'slots'}${of(shard)}`), el('span', { class: 'range', title: range }, range)),
    ...shard.nodes.map(nodeRow));
}

function nodeRow(node) {
  const state = el('span', { class: 'pill' }), bar = el('i'), why = el('p', { class: 'why' });
  const facts = ['commands/s', 'p50', 'p99', 'in flight'].map((what) => {
    const value = el('dd');
    return [value, el('div', {}, el('dt', {}, what), value)];
  });
  const name = node.name && !node.addr.startsWith(`${node.name}:`) ? ` ${node.name}` : '';
  const row = el('div', { class: `node ${node.role}`, 'data-addr': node.addr },
    el('span', { class: 'role' }, node.role),
    el('span', { class: 'addr mono', title: node.addr + name }, node.addr + name + (node.zone ? ` · ${node.zone}` : '')),
    state, el('div', { class: 'load', 'aria-hidden': 'true' }, bar), el('dl', {}, ...facts.map((fact) => fact[1])), why);
  nodes.set(node.addr, (now, busiest) => {
    const [kind, words] = STATES[now.state] ?? ['warn', `▲ ${now.state}`];
    state.className = `pill ${kind}`;
    text(state, words);
    text(why, now.why ?? '');
    why.hidden = !now.why;
    row.classList.toggle('down', kind === 'bad');
    bar.style.width = `${(100 * now.ops) / busiest}%`;
    const values = [si(now.ops), micros(now.p50), micros(now.p99), si(now.in_flight)];
    facts.forEach(([value], i) => text(value, values[i]));
    row.title = `${plural(now.connections, 'connection')}, ${now.connecting} connecting, ${now.backoff} in backoff; ` +
      `${bytes(now.sent)}/s sent, ${bytes(now.received)}/s received; ${now.failures} lost or failed`;
  });
  return row;
}

// ---- plots ----

const KEPT = 600;
let rows = [];
let columns = {};
let lastRow = 0;
// Until the user chooses a range: the shortest one that holds all rows.
let chosenSeconds = null;
let shownSeconds = 60;
const RANGES = [60, 180, 600];

function remember(history) {
  columns = Object.fromEntries(history.columns.map((name, i) => [name, i]));
  // A new process numbers its rows from 1.
  if (history.last < lastRow) rows = [];
  lastRow = history.last;
  rows = rows.concat(history.rows).slice(-KEPT);
  const age = rows.length ? (rows.at(-1)[0] - rows[0][0]) / 1000 : 0;
  shownSeconds = chosenSeconds ?? RANGES.find((seconds) => seconds >= age) ?? RANGES.at(-1);
  for (const button of $('ranges').children) button.setAttribute('aria-pressed', String(Number(button.value) === shownSeconds));
}

const PLOTS = [
  { id: 'ops', title: 'Commands per second', show: si, series: [['ops', 'commands', 'la']] },
  { id: 'latency', title: 'Latency', show: micros, log: true, least: 10,
    series: [['p50', 'p50', 'la'], ['p99', 'p99', 'lb dash1'], ['p999', 'p99.9', 'lc dash2']] },
  { id: 'bytes', title: 'Bytes per second', show: bytes, base: 1024, series: [['received', 'from clients', 'la'], ['sent', 'to clients', 'lb dash1']] },
  { id: 'errors', title: 'Errors per second', show: si,
    series: [['errors', 'nodes’', 'le'], ['refused', 'slotway’s', 'lb dash1'], ['redirections', 'redirections', 'lc dash2']] },
];

const HEIGHT = 150, LEFT = 58, RIGHT = 6, TOP = 8, BOTTOM = 20;

function plot(form) {
  const canvas = svg('svg', { role: 'img', 'aria-label': form.title });
  const values = form.series.map(() => el('span'));
  const keys = form.series.map(([, label, style], i) => el('span', {},
    svg('svg', { viewBox: '0 0 20 8', 'aria-hidden': 'true' }, svg('line', { x1: 0, x2: 20, y1: 4, y2: 4, class: `line ${style}` })),
    `${label} `, values[i]));
  $('plots').append(el('figure', { class: 'plot', id: `plot-${form.id}` },
    el('figcaption', {}, el('b', {}, form.title), el('span', { class: 'keys' }, ...keys)), canvas));
  let pointer = null;
  const draw = () => drawPlot(form, canvas, values, pointer);
  canvas.addEventListener('pointermove', (event) => { pointer = event.clientX - canvas.getBoundingClientRect().left; draw(); });
  canvas.addEventListener('pointerleave', () => { pointer = null; draw(); });
  return draw;
}

/** Shortens the label of an axis: no trailing zeros. */
const short = (words) => words.replace(/(\.\d*?)0+(?!\d)/, '$1').replace(/\.(?!\d)/, '');

/** Round steps for an axis up to `top`: 1, 2 or 5 times a power (in bytes: of two). */
function ticks(top, base) {
  const unit = base ? base ** Math.floor(Math.log(top) / Math.log(base)) : 1;
  const rough = top / unit / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = unit * power * ([1, 2, 5, 10].find((n) => n * power >= rough) ?? 10);
  const all = [];
  for (let at = 0; at < top + step && all.length < 8; at += step) all.push(at);
  return all;
}

function drawPlot(form, canvas, values, pointer) {
  const width = canvas.clientWidth || 300;
  const now = rows.length ? rows.at(-1)[0] : Date.now();
  const from = now - shownSeconds * 1000;
  const seen = rows.filter((row) => row[0] >= from);
  const at = form.series.map(([name]) => columns[name]);
  const peak = Math.max(...seen.flatMap((row) => at.map((i) => row[i] ?? 0)), 0);
  const x = (millis) => LEFT + ((width - LEFT - RIGHT) * (millis - from)) / (shownSeconds * 1000);
  let marks, y;
  if (form.log) {
    const [low, high] = [Math.log10(form.least), Math.max(Math.ceil(Math.log10(Math.max(peak, 1000))), 3)];
    marks = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
    y = (v) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (Math.log10(Math.max(v, form.least)) - low) / (high - low));
  } else {
    marks = ticks(Math.max(peak, 4), form.base);
    const top = Math.max(marks.at(-1), peak);
    y = (v) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - v / top);
  }
  const parts = marks.flatMap((mark) => [
    svg('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(mark), y2: y(mark) }),
    svg('text', { x: LEFT - 8, y: y(mark) + 4, 'text-anchor': 'end' }, short(form.show(mark))),
  ]);
  for (const part of [0, 0.5, 1]) {
    const ago = shownSeconds * (1 - part);
    const words = ago === 0 ? 'now' : ago < 60 ? `−${ago} s` : `−${ago / 60} min`;
    parts.push(svg('text', { x: LEFT + (width - LEFT - RIGHT) * part, y: HEIGHT - 5, 'text-anchor': ['start', 'middle', 'end'][part * 2] }, words));
  }
  form.series.forEach(([, , style], i) => {
    let line = '', before = null;
    for (const row of seen) {
      const value = row[at[i]];
      // Missing rows and values make gaps in the line.
      if (value === null) { before = null; continue; }
      line += `${before !== null && row[0] - before < 3500 ? 'L' : 'M'}${x(row[0]).toFixed(1)} ${y(value).toFixed(1)}`;
      before = row[0];
    }
    if (i === 0 && line && !form.log && line.lastIndexOf('M') === 0) {
      const [first, last] = [x(seen[0][0]), x(seen.at(-1)[0])];
      parts.push(svg('path', { class: `area ${style}`, d: `${line}L${last.toFixed(1)} ${y(0)}L${first.toFixed(1)} ${y(0)}Z` }));
    }
    parts.push(svg('path', { class: `line ${style}`, d: line }));
  });
  let shown = seen.at(-1);
  if (pointer !== null && seen.length) {
    shown = seen.reduce((best, row) => Math.abs(x(row[0]) - pointer) < Math.abs(x(best[0]) - pointer) ? row : best);
    parts.push(svg('line', { class: 'cursor', x1: x(shown[0]), x2: x(shown[0]), y1: TOP, y2: HEIGHT - BOTTOM }),
      svg('text', { x: Math.min(Math.max(x(shown[0]), LEFT + 26), width - 30), y: TOP + 4, 'text-anchor': 'middle' }, clock(shown[0])));
  }
  values.forEach((value, i) => text(value, shown ? form.show(shown[at[i]]) : '–'));
  canvas.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
  canvas.setAttribute('aria-label', `${form.title}: ${form.series.map(([, label], i) => `${label} ${values[i].textContent}`).join(', ')}; ` +
    `at most ${form.show(peak)} in ${duration(shownSeconds)}`);
  canvas.replaceChildren(...parts);
}

const plots = PLOTS.map(plot);
const drawAll = () => plots.forEach((draw) => draw());
new ResizeObserver(drawAll).observe($('plots'));

for (const seconds of RANGES) {
  $('ranges').append(el('button', { type: 'button', value: seconds, 'aria-pressed': 'false', onclick() {
    chosenSeconds = seconds;
    remember({ columns: Object.keys(columns), rows: [], last: lastRow });
    drawAll();
  } }, `${seconds / 60} min`));
}

// ---- events, commands ----

const LEVELS = { good: '✓', info: 'i', warn: '!', bad: '✕' };
let revision = null;

function showEvents(events) {
  if (!events.list) return;
  revision = events.revision;
  replace($('event-list'), events.list, () => events.list.length === 0
    ? el('li', { class: 'empty' }, 'No events yet.')
    : events.list.map((event) => el('li', {},
      el('time', { class: 'muted', datetime: new Date(event.last).toISOString(), title: `first ${clock(event.first)}` }, clock(event.last)),
      el('span', { class: `pill ${event.level}` }, el('span', { 'aria-hidden': 'true' }, LEVELS[event.level]), event.kind),
      el('span', { class: 'text' }, event.text),
      el('span', { class: 'muted' }, event.count > 1 ? `× ${si(event.count)}` : ''))));
}

const cut = (words, length) => words.length > length ? `${words.slice(0, length)}…` : words;

/** Creates a table; a column is [heading, class, function from a row to the cell's content]. */
function table(list, cells) {
  return el('div', { class: 'scroll' }, el('table', {},
    el('thead', {}, el('tr', {}, ...cells.map(([head, kind]) => el('th', { class: kind === 'n' ? 'n' : null, scope: 'col' }, head)))),
    el('tbody', {}, ...list.map((row) => el('tr', {}, ...cells.map(([, kind, cell]) => el('td', { class: kind || null }, cell(row))))))));
}

function load(share) {
  const bar = el('i');
  bar.style.width = `${Math.min(100, 100 * share)}%`;
  return el('div', { class: 'load', 'aria-hidden': 'true' }, bar);
}

const empty = (words) => el('p', { class: 'empty' }, words);

function showCommands(list) {
  const most = list[0]?.ops ?? 1;
  replace($('command-list'), list, () => list.length === 0 ? empty('No commands in the last seconds.') : table(list, [
    ['command', 'mono', (c) => c.name.replace('|', ' ')], ['', 'bar', (c) => load(c.ops / most)],
    ['commands', 'n', (c) => si(c.ops)], ['errors', 'n', (c) => si(c.errors)]]));
}

// ---- keys and slow commands: documents that may be absent ----

function showKeys(hot, big) {
  const off = () => empty('Switched off: set observe.hot_keys = true in the configuration to switch it on.');
  text($('hot-facts'), hot?.enabled ? `about ${si(hot.commands_per_second)} commands with keys per second, one in ${hot.sample} sampled` : '');
  const most = hot?.keys?.[0]?.per_second ?? 1;
  replace($('hot'), hot, () => !hot?.enabled ? off() : hot.keys.length === 0 ? empty('No key stands out.') : table(hot.keys.slice(0, 15), [
    ['key', 'key mono', (k) => k.key + (k.truncated ? '…' : '')], ['', 'bar', (k) => load(k.per_second / most)],
    ['per second', 'n', (k) => `${si(k.per_second)}${k.error_per_second >= 1 ? ` +${si(k.error_per_second)}` : ''}`],
    ['writes', 'n', (k) => si(k.writes_per_second)], ['last', 'mono', (k) => k.command],
    ['node', 'mono', (k) => k.node ?? '–']]));
  text($('big-facts'), big?.enabled ? 'by the largest command or reply seen' : '');
  replace($('big'), big, () => !big?.enabled ? off() : big.keys.length === 0 ? empty('No key stands out.') : table(big.keys.slice(0, 15), [
    ['key', 'key mono', (k) => k.key + (k.truncated ? '…' : '')], ['size', 'n', (k) => bytes(k.bytes)],
    ['in', '', (k) => `${k.command} ${k.direction}`], ['seen', 'n', (k) => `${duration(k.seen_seconds_ago)} ago`],
    ['node', 'mono', (k) => k.node ?? '–']]));
}

function showSlow(log) {
  const on = log && log.slower_than_micros >= 0;
  text($('slow-facts'), on ? `slower than ${micros(log.slower_than_micros)}; ${si(log.total)} since the start` : '');
  replace($('slow-list'), log, () => {
    if (!on) return empty('Switched off: set slowlog.slower_than in the configuration to switch it on.');
    if (log.entries.length === 0) return empty('No command was slow.');
    return table(log.entries.slice(0, 12), [
      ['at', 'n', (e) => clock(e.time * 1000)], ['command', 'key mono', (e) => cut(e.args.join(' '), 100)],
      ['took', 'n', (e) => micros(e.duration_micros)], ['queue', 'n', (e) => micros(e.queue_micros)],
      ['node', 'n', (e) => micros(e.node_micros)], ['client', 'n', (e) => micros(e.client_micros)],
      ['tries', 'n', (e) => e.tries], ['at node', 'mono', (e) => e.node || '–'],
      ['from', '', (e) => `${e.client}${e.client_name ? ` (${e.client_name})` : ''}`]]);
  });
}

// ---- clients ----

function bars(title, list, others) {
  const most = Math.max(1, ...list.map(([, n]) => n));
  const items = list.map(([name, n]) => el('li', {}, el('span', { class: 'name', title: name }, name), el('span', {}, si(n)), load(n / most)));
  if (others) items.push(el('li', { class: 'muted' }, 'others', el('span', {}, si(others))));
  if (!items.length) items.push(el('li', { class: 'muted' }, 'none'));
  return el('div', {}, el('h3', {}, title), el('ul', { class: 'bars' }, ...items));
}

function showClients(census, workers) {
  text($('clients-facts'), `${plural(census.clients, 'client')}, ${si(census.resp3)} of them speak RESP3`);
  replace($('client-groups'), [census, workers.list], () => [
    bars('By worker', workers.list.map((w) => [`worker ${w.index}`, w.clients])),
    bars('By user', census.users.top, census.users.others),
    bars('By library', census.libraries.top, census.libraries.others),
    bars('By name', census.names.top, census.names.others)]);
  replace($('slow-readers'), census.slow_readers, () => census.slow_readers.length === 0 ? [] : [
    el('h3', {}, 'Unread replies'), table(census.slow_readers, [
      ['client', 'mono', (c) => c.addr], ['name', 'key', (c) => c.name || '–'], ['user', '', (c) => c.user],
      ['last command', 'mono', (c) => c.command.replace('|', ' ')], ['waiting', 'n', (c) => bytes(c.output)]])]);
}

// ---- configuration ----

let config = [];

function showConfig() {
  const wanted = $('config-find').value.trim().toLowerCase();
  const all = $('config-all').checked || wanted !== '';
  const list = config.filter((k) => (all || !k.default) && `${k.key} ${k.value} ${wanted ? k.doc : ''}`.toLowerCase().includes(wanted));
  replace($('config-list'), list, () => list.length === 0 ? empty(wanted ? 'No key matches.' : 'All keys are at their defaults.')
    : list.map((k) => el('div', { class: k.default ? '' : 'set' }, el('dt', { class: 'mono' }, k.key),
      el('dd', { class: 'mono' }, k.value), el('dd', { class: 'doc' }, meaning(k.doc)))));
}

/** The first sentence of a key's documentation; further ones can be unfolded. */
function meaning(doc) {
  const end = doc.indexOf('. ') + 1;
  return end === 0 ? doc : el('details', {}, el('summary', {}, doc.slice(0, end)), doc.slice(end + 1));
}

$('config-find').addEventListener('input', showConfig);
$('config-all').addEventListener('change', showConfig);

// ---- polling ----

let last = null;
let workers = { list: [] };
// Number of the current polling run; loops of earlier runs end themselves.
let run = 0;

function live(words, stale) {
  text($('live-text'), words);
  document.body.classList.toggle('stale', stale);
}

async function status() {
  const s = await ask(`/status.json?since=${lastRow}${revision === null ? '' : `&events=${revision}`}`);
  if (last && (s.pid !== last.pid || s.history.last < lastRow)) revision = null;
  last = s;
  workers = s.workers;
  remember(s.history);
  showHead(s);
  tiles.forEach((show) => show(s));
  showCluster(s);
  drawAll();
  showEvents(s.events);
  showCommands(s.commands);
  live(`live · ${clock(s.at)}`, false);
}

async function keys() {
  const [hot, big, slow] = await Promise.all(['/hotkeys?count=15', '/bigkeys?count=15', '/slowlog?count=12'].map(ask));
  showKeys(hot, big);
  showSlow(slow);
}

/** Repeats `work`, `pause` milliseconds after its end, except while the page is hidden. */
async function again(work, pause) {
  const mine = run;
  while (mine === run) {
    try {
      if (!document.hidden) await work();
    } catch (error) {
      if (mine !== run) return;
      if (error instanceof Refused) return refused();
      live(last ? `no answer since ${clock(last.at)}, trying again` : 'no answer, trying again', true);
    }
    await new Promise((done) => { setTimeout(done, pause); });
  }
}

function refused() {
  run += 1;
  live('token required', true);
  login(token !== '');
}

function begin() {
  run += 1;
  again(status, 1000);
  again(keys, 2000);
  again(async () => showClients(await ask('/clients.json'), workers), 3000);
  ask('/config.json').then((keys) => { config = keys; showConfig(); }, () => {});
}

document.addEventListener('visibilitychange', () => { if (!document.hidden && !$('login').open) begin(); });
begin();
