// The room on the wall: can it run, who holds what, how fast, and who may come.
import {el, svg, $, put, named, StateLine} from './dom.js';
import {n0, gb, speed, ms, size, clock} from './strings.js';
import {Feed, holders, lacking} from './feed.js';
import {Table, Way, parts} from './picture.js';

const line = new StateLine($('#state'));
const feed = new Feed();
const table = new Table($('#picture'));
const way = new Way($('#way'));
const still = matchMedia('(prefers-reduced-motion: reduce)');
const kept = 20; // tokens whose median is shown
const replayMs = 6000;
const tokens = [];
let operatorKey = '', links = [], dirty = false, replaying = null;

// --- the picture, once a second ---------------------------------------------------

function draw() {
  dirty = false;
  const {room} = feed;
  if (!room) return;
  const chain = holders(room);
  const ready = room.model.missing_bytes === 0 && chain.length > 0;
  put($('#title'), ready ? `${room.model.name} ready` : room.model.name);
  document.title = `${ready ? '● ' : '○ '}${room.model.name} · Potluck`;
  const wait = room.workers.length - chain.length;
  put($('#people'), people(chain.length, wait, room.losses));
  put($('#measured'), room.measured_tok_s > 0 ? speed(room.measured_tok_s) : '–');
  put($('#predicted'), room.predicted_tok_s > 0 ? speed(room.predicted_tok_s) : '–');
  put($('#reason'), (room.reasons ?? []).join(' '));
  table.draw(room, chain);
  drawTable(room);
  if ($('#policy').value !== room.policy && document.activeElement !== $('#policy')) $('#policy').value = room.policy;
  if (line.id === 'rejoining' || line.id === 'gone' || line.id === 'error') return;
  if (room.model.missing_bytes > 0) line.show('short', lacking(room, {gb, n0}), {'Invite': () => { $('.invite').scrollIntoView(); $('#key').focus(); }});
  else line.clear();
}

function people(lend, wait, losses) {
  const text = [`${n0(lend)} lend`];
  if (wait > 0) text.push(wait === 1 ? '1 waits' : `${n0(wait)} wait`);
  if (losses > 0) text.push(losses === 1 ? '1 left in the middle; nothing was lost' : `${n0(losses)} left in the middle; nothing was lost`);
  return text.join(', ');
}

// later draws soon, but at most once a second.
let drawn = 0;
function later() {
  if (dirty) return;
  dirty = true;
  setTimeout(() => { drawn = performance.now(); draw(); }, Math.max(0, 1000 - (performance.now() - drawn)));
}

// --- the last token's way ----------------------------------------------------------

const median = list => list.toSorted((a, b) => a - b)[list.length >> 1] ?? 0;

function drawWay() {
  const last = tokens.at(-1);
  if (!last || replaying) return;
  const same = tokens.filter(t => t.hops.length === last.hops.length && t.hops.every((h, i) => h.id === last.hops[i].id));
  const names = new Map(feed.room?.workers.map(w => [w.id, w.name]));
  const hops = last.hops.map((h, i) => ({id: h.id, name: names.get(h.id) ?? 'gone', ...Object.fromEntries(parts.map(p => [p, median(same.map(t => t.hops[i].hop_ms[p] ?? 0))]))}));
  const token = {hops, coordinator: median(same.map(t => t.coordinator_ms))};
  way.draw(token);
  $('#replay').disabled = false;
  put($('#slowest'), slowest(hops, token.coordinator));
}

// slowest names the hop that takes longest, and what of it.
function slowest(hops, coordinator) {
  const sum = h => parts.reduce((total, p) => total + h[p], 0);
  const worst = hops.reduce((a, b) => a && sum(a) >= sum(b) ? a : b, null);
  const all = hops.reduce((total, h) => total + sum(h), coordinator);
  if (!worst) return `Last token ${ms(all)}.`;
  const mostly = parts.reduce((a, b) => worst[a] >= worst[b] ? a : b);
  return `Last token ${ms(all)}. Slowest: ${worst.name}, ${ms(sum(worst))}, mostly ${mostly}.`;
}

function replay() {
  if (replaying) { endReplay(); return; }
  put($('#slower'), `×${n0(Math.max(1, replayMs / way.total))} slower`);
  if (still.matches) { stepReplay(); return; }
  put($('#replay'), 'Stop replay');
  const began = performance.now();
  replaying = {frame: 0};
  const tick = now => {
    const share = (now - began) / replayMs;
    if (share >= 1) { endReplay(); return; }
    table.mark(way.at(share)?.id ?? '', 'lit');
    replaying.frame = requestAnimationFrame(tick);
  };
  replaying.frame = requestAnimationFrame(tick);
}

// Without motion one button goes from station to station.
let station = -1;
function stepReplay() {
  const stops = way.segments.filter(s => s.width > 0);
  station++;
  if (station >= stops.length) {
    station = -1;
    way.at(null);
    table.mark('', 'lit');
    put($('#replay'), 'Slow replay');
    put($('#slower'), '');
    return;
  }
  const s = stops[station];
  way.at((s.x + s.width / 2) / $('#way').clientWidth);
  table.mark(s.id, 'lit');
  put($('#replay'), 'Next');
  put($('#slower'), `${s.name}: ${s.part} ${ms(s.ms)}`);
}

function endReplay() {
  cancelAnimationFrame(replaying.frame);
  replaying = null;
  way.at(null);
  table.mark('', 'lit');
  put($('#replay'), 'Slow replay');
  put($('#slower'), '');
  drawWay();
}

// --- events ------------------------------------------------------------------------

function note(...what) {
  const list = $('#events');
  if (list.firstElementChild?.className === 'note') list.replaceChildren();
  list.prepend(el('li', null, el('time', null, clock(new Date())), ' ', ...what));
  while (list.children.length > 8) list.lastElementChild.remove();
}

let known = null;
function compare(room) {
  const now = new Map(room.workers.map(w => [w.id, {...w}]));
  if (known) {
    for (const [id, w] of now) {
      const before = known.get(id);
      if (!before) note(named(w.name), ' joined');
      else if (before.state !== 'ready' && w.state === 'ready' && w.layer_count > 0) note(named(w.name), ` holds layers ${n0(w.layer_first)} to ${n0(w.layer_first + w.layer_count - 1)}`);
    }
  }
  known = now;
}

// --- the table ---------------------------------------------------------------------

const layers = w => w.layer_count > 1 ? `${w.layer_first}–${w.layer_first + w.layer_count - 1}` : w.layer_count === 1 ? `${w.layer_first}` : '–';
const hop = w => w.hop_ms ? parts.reduce((sum, p) => sum + (w.hop_ms[p] ?? 0), 0) : 0;
const columns = [
  ['Name', w => named(w.name), w => w.name.toLowerCase()],
  ['Kind', w => w.kind, w => w.kind],
  ['State', w => w.state === 'ready' && !(w.layer_count > 0) ? 'in reserve' : w.state + (w.hidden ? ', hidden' : '') + (w.throttled ? ', slowed' : ''), w => w.state],
  ['Layers', layers, w => w.layer_count > 0 ? w.layer_first : 1e9],
  ['Computes on', w => w.backend ?? '', w => w.backend ?? ''],
  ['Lends', w => w.bytes ? size(w.bytes) : '', w => -(w.bytes ?? 0)],
  ['tok/s', w => w.tok_s > 0 ? speed(w.tok_s) : '–', w => -w.tok_s],
  ['Hop', w => hop(w) > 0 ? ms(hop(w)) : '–', w => -hop(w)],
  ['Tokens', w => n0(w.tokens ?? 0), w => -(w.tokens ?? 0)],
];
const sorting = {by: 3, down: false};
const rows = new Map();
let showAll = false;
const few = matchMedia('(max-width: 640px)');

function headers() {
  put($('#workers thead tr'), ...columns.map(([title], i) => el('th', {scope: 'col', 'aria-sort': sorting.by === i ? (sorting.down ? 'descending' : 'ascending') : null},
    el('button', {type: 'button', class: 'sort', onclick: () => {
      sorting.down = sorting.by === i ? !sorting.down : false;
      sorting.by = i;
      headers();
      if (feed.room) drawTable(feed.room);
    }}, title))), operatorKey ? el('th', {scope: 'col'}, 'Operator') : null);
}

function drawTable(room) {
  const wanted = $('#search').value.trim().toLowerCase();
  $('#search-field').hidden = room.workers.length <= 40;
  const key = columns[sorting.by][2];
  const list = room.workers.filter(w => !wanted || w.name.toLowerCase().includes(wanted)).map(w => [key(w), w])
    .sort(([a, v], [b, w]) => (a < b ? -1 : a > b ? 1 : v.id < w.id ? -1 : 1) * (sorting.down ? -1 : 1)).map(([, w]) => w);
  const limit = showAll ? Infinity : few.matches ? 20 : 100;
  const shown = list.slice(0, limit);
  $('#all').hidden = list.length <= limit;
  put($('#all'), `${n0(list.length - shown.length)} more`);
  const body = $('#workers tbody');
  const nodes = shown.map(w => row(w));
  if (nodes.length !== body.children.length || nodes.some((n, i) => body.children[i] !== n)) body.replaceChildren(...nodes);
  for (const id of rows.keys()) if (!room.workers.some(w => w.id === id)) rows.delete(id);
}

function row(w) {
  let r = rows.get(w.id);
  if (!r) {
    r = el('tr', {tabindex: '0', onfocus: () => table.mark(w.id), onblur: () => table.mark('')}, ...columns.map(() => el('td')));
    rows.set(w.id, r);
  }
  const signature = JSON.stringify(w) + operatorKey;
  if (r.signature === signature) return r;
  r.signature = signature;
  columns.forEach(([, show], i) => put(r.children[i], show(w)));
  if (operatorKey && r.children.length === columns.length) r.append(el('td', null, el('button', {type: 'button', class: 'quiet small', 'aria-label': `Remove ${w.name}`, onclick: () => remove(w)}, 'Remove')));
  return r;
}

// --- inviting, and the operator -------------------------------------------------------

async function operator(path, options = {}) {
  const response = await fetch(path, {...options, cache: 'no-store', headers: {Authorization: 'Bearer ' + operatorKey, 'Content-Type': 'application/json'}});
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error?.message ?? String(response.status));
  return response.status === 204 ? null : response.json();
}

async function remove(w) {
  try {
    await operator('/v1/cluster/workers/' + encodeURIComponent(w.id), {method: 'DELETE'});
  } catch (e) {
    line.show('error', {what: e.message, next: 'Nobody was removed'}, {'Retry': () => { line.clear(); remove(w); }});
  }
}

async function unlock(key) {
  operatorKey = key;
  try {
    const invitation = await operator('/v1/cluster/invitation');
    links = invitation.links ?? [];
    if (!links.length && invitation.token) links = [{url: `${location.origin}/j#${invitation.token}`}];
    put($('#words'), invitation.words ? `This room’s certificate is named ${invitation.words}.` : '');
    put($('#choose'), ...links.map((l, i) => el('option', {value: i}, new URL(l.url).host)));
    $('#choose-field').hidden = links.length < 2;
    showLink(0);
    $('#key-form').hidden = true;
    $('#policy-form').hidden = false;
    sessionStorage.setItem('potluck.operator', key);
  } catch (e) {
    operatorKey = '';
    sessionStorage.removeItem('potluck.operator');
    put($('#key-error'), e.message);
  }
  headers();
  rows.clear();
  if (feed.room) drawTable(feed.room);
}

function showLink(i) {
  const link = links[i];
  if (!link) return;
  const url = new URL(link.url);
  put($('#address'), el('strong', null, url.host), el('br'), 'code ', el('code', null, decodeURIComponent(url.hash.slice(1))));
  put($('#code'), link.qr ? qr(link.qr, link.url) : '');
}

// qr draws a code from its rows of 0 and 1, with the quiet zone around it.
function qr(bits, url) {
  const n = bits.length + 8;
  const d = bits.flatMap((row, y) => [...row].map((bit, x) => bit === '1' ? `M${x + 4} ${y + 4}h1v1h-1z` : '')).join('');
  return svg('svg', {viewBox: `0 0 ${n} ${n}`, role: 'img', 'aria-label': 'Code that leads to ' + url, 'shape-rendering': 'crispEdges'}, svg('rect', {width: n, height: n, fill: '#fff'}), svg('path', {d, fill: '#000'}));
}

// --- the feed ------------------------------------------------------------------------

feed.addEventListener('change', () => { compare(feed.room); later(); });
feed.addEventListener('left', ({detail: w}) => note(named(w.name), ` left${w.reason && w.reason !== 'left' ? ': ' + w.reason : ''}`));
feed.addEventListener('token', ({detail: t}) => {
  if (!t.hops) return;
  tokens.push(t);
  if (tokens.length > kept) tokens.shift();
  drawWay();
});
feed.addEventListener('link', ({detail: l}) => {
  const now = {'Try now': () => feed.now()};
  document.body.classList.toggle('stale', !l.up);
  if (l.up) {
    if (line.id === 'rejoining' || line.id === 'gone') line.clear();
    later();
  } else if (l.failures > 3) {
    line.show('gone', {time: clock(new Date(l.since))}, now);
  } else {
    line.show('rejoining', {s: n0(l.retryIn)}, now);
  }
});

$('#replay').addEventListener('click', replay);
$('#search').addEventListener('input', () => feed.room && drawTable(feed.room));
$('#all').addEventListener('click', () => { showAll = true; drawTable(feed.room); });
$('#choose').addEventListener('change', e => showLink(Number(e.target.value)));
$('#key-form').addEventListener('submit', e => { e.preventDefault(); put($('#key-error'), ''); unlock($('#key').value.trim()); });
$('#policy').addEventListener('change', async e => {
  try {
    await operator('/v1/cluster/policy', {method: 'POST', body: JSON.stringify({policy: e.target.value})});
  } catch (error) {
    line.show('error', {what: error.message, next: 'The policy stays'}, {'Retry': () => line.clear()});
  }
});
new ResizeObserver(() => { if (feed.room) { table.draw(feed.room, holders(feed.room)); drawWay(); } }).observe($('#picture'));

headers();
const fromLink = decodeURIComponent(location.hash.slice(1));
if (fromLink) history.replaceState(null, '', location.pathname);
const key = fromLink || sessionStorage.getItem('potluck.operator');
if (key) unlock(key);
feed.start();
