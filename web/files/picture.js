// The room as a table: layers from left to right, each computer a block as wide
// as its span. And below it the way of a token, in milliseconds.
import {svg, put} from './dom.js';
import {n0, ms} from './strings.js';

const gap = 8, axis = 22, doorHeight = 30, leaveMs = 3000;
export const parts = ['queue', 'wire', 'compute', 'readback'];

// spans gives each holder of the chain its place in layers. Where a cut lies
// inside a layer, those who share the layer share its width evenly.
export function spans(holders) {
  const edges = [];
  for (let i = 0; i + 1 < holders.length; i++) {
    const here = holders[i], next = holders[i + 1];
    const end = here.layer_first + here.layer_count;
    edges.push(next.layer_first < end ? {layer: end - 1, inside: true} : {layer: next.layer_first, inside: false});
  }
  const within = new Map();
  for (const e of edges) if (e.inside) within.set(e.layer, (within.get(e.layer) ?? 0) + 1);
  const seen = new Map();
  const at = edges.map(e => {
    if (!e.inside) return e.layer;
    const k = (seen.get(e.layer) ?? 0) + 1;
    seen.set(e.layer, k);
    return e.layer + k / (within.get(e.layer) + 1);
  });
  return holders.map((w, i) => ({worker: w, from: i ? at[i - 1] : w.layer_first, to: i < at.length ? at[i] : w.layer_first + w.layer_count}));
}

const layersOf = w => w.layer_count === 1 ? `layer ${w.layer_first}` : `${w.layer_first}–${w.layer_first + w.layer_count - 1}`;
const hopMs = w => w.hop_ms ? parts.reduce((sum, p) => sum + (w.hop_ms[p] ?? 0), 0) : 0;

// A Table is the picture. It keeps a block per worker and moves it.
export class Table {
  constructor(root) {
    this.root = root;
    this.blocks = new Map();
    this.leaving = new Set();
    this.hatch = svg('pattern', {id: 'loading', width: 8, height: 8, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)'}, svg('rect', {width: 4, height: 8, class: 'hatch'}));
    this.axis = svg('g', {class: 'axis'});
    this.label = svg('text', {class: 'door', x: 0});
    this.layer = svg('g');
    this.svg = svg('svg', {role: 'img', class: 'seats'}, svg('defs', null, this.hatch), this.axis, this.label, this.layer);
    root.append(this.svg);
  }

  draw(room, chain) {
    this.room = room;
    this.chain = chain;
    const width = Math.max(200, this.root.clientWidth);
    // On a wall the picture is read from far away.
    this.large = width > 1100;
    this.svg.classList.toggle('large', this.large);
    const rowHeight = this.rowHeight = this.large ? 92 : 64;
    const perLayer = width / Math.max(1, room.model.layers);
    const seated = spans(chain);
    const inChain = new Set(chain.map(w => w.id));
    // Those who load the next plan sit below those who serve.
    const next = room.workers.filter(w => !inChain.has(w.id) && w.layer_count > 0);
    const door = room.workers.filter(w => !inChain.has(w.id) && !(w.layer_count > 0));
    const seen = new Set();
    const place = (w, x, y, wide, high) => {
      seen.add(w.id);
      this.place(w, x, y, Math.max(3, wide), high);
    };
    for (const s of seated) place(s.worker, s.from * perLayer, axis, (s.to - s.from) * perLayer - 2, rowHeight);
    let y = axis + (seated.length ? rowHeight + gap : 0);
    for (const s of spans(next.sort((a, b) => a.layer_first - b.layer_first))) place(s.worker, s.from * perLayer, y, (s.to - s.from) * perLayer - 2, rowHeight);
    if (next.length) y += rowHeight + gap;
    if (!seated.length && !next.length) y += rowHeight + gap; // an empty table is still a table
    y = this.seatDoor(door, y, width, place);
    for (const [id, b] of this.blocks) if (!seen.has(id)) this.leave(id, b);
    this.ticks(room.model.layers, perLayer, width, seated.length + next.length === 0);
    this.svg.setAttribute('viewBox', `0 0 ${width} ${y}`);
    this.svg.setAttribute('width', width);
    this.svg.setAttribute('height', y);
    this.svg.setAttribute('aria-label', this.summary(room, chain, door));
  }

  // seatDoor shows those who wait, smaller the more they are.
  seatDoor(door, y, width, place) {
    this.label.setAttribute('visibility', door.length ? 'visible' : 'hidden');
    if (!door.length) return y;
    put(this.label, door.length === 1 ? '1 in reserve or joining' : `${n0(door.length)} in reserve or joining`);
    this.label.setAttribute('y', y + 14);
    y += 22;
    const wide = door.length <= 8 ? 116 : door.length <= 40 ? 58 : 8;
    const high = door.length <= 40 ? doorHeight : 8;
    const perRow = Math.max(1, Math.floor(width / (wide + 4)));
    door.forEach((w, i) => place(w, (i % perRow) * (wide + 4), y + Math.floor(i / perRow) * (high + 4), wide, high));
    return y + Math.ceil(door.length / perRow) * (high + 4);
  }

  ticks(layers, perLayer, width, empty) {
    const step = [1, 2, 5, 10, 20, 50, 100].find(s => s * perLayer >= 34) ?? 200;
    const marks = [];
    for (let i = 0; i < layers; i += step) marks.push(svg('text', {x: Math.min(i * perLayer + 1, width - 20), y: 13}, i ? String(i) : 'layer 0'));
    this.axis.replaceChildren(...marks.filter((m, i) => i !== 1 || step * perLayer > 60), ...(empty ? [svg('rect', {class: 'bare', x: 1, y: axis, width: width - 2, height: this.rowHeight, rx: 8})] : []));
  }

  place(w, x, y, wide, high) {
    let b = this.blocks.get(w.id);
    if (!b) {
      b = {group: svg('g', {class: 'block arrives', 'data-id': w.id}), body: svg('rect'), fill: svg('rect', {class: 'progress'}), cross: svg('path', {class: 'cross'}),
        texts: [svg('text', {class: 'name'}), svg('text'), svg('text')], tip: svg('title')};
      b.group.append(b.tip, b.body, b.fill, b.cross, ...b.texts);
      this.layer.append(b.group);
      this.blocks.set(w.id, b);
      requestAnimationFrame(() => b.group.classList.remove('arrives'));
    }
    this.leaving.delete(w.id);
    b.group.setAttribute('class', `block ${w.kind === 'native' ? 'native' : 'browser'} ${w.state}${w.layer_count > 0 ? '' : ' reserve'}${b.group.classList.contains('lit') ? ' lit' : ''}${b.group.classList.contains('marked') ? ' marked' : ''}`);
    b.group.style.transform = `translate(${x.toFixed(1)}px, ${y}px)`;
    const round = w.kind === 'native' ? 3 : Math.min(16, wide / 3, high / 2);
    const part = w.state === 'loading' && w.bytes_total > 0 ? Math.min(1, w.bytes_loaded / w.bytes_total) : 0;
    for (const [rect, width] of [[b.body, wide], [b.fill, wide * part]]) {
      rect.setAttribute('width', Math.max(0, width - 1).toFixed(1));
      rect.setAttribute('height', high - 1);
      rect.setAttribute('x', .5);
      rect.setAttribute('y', .5);
      rect.setAttribute('rx', round);
    }
    b.cross.setAttribute('d', w.state === 'leaving' ? `M2 2L${wide - 3} ${high - 3}M${wide - 3} 2L2 ${high - 3}` : '');
    this.write(b, w, wide, high);
  }

  write(b, w, wide, high) {
    const letters = Math.floor((wide - 14) / (this.large && high >= this.rowHeight ? 9.6 : 7.4));
    const cut = (text, room) => text.length <= room ? text : room < 3 ? '' : text.slice(0, room - 1) + '…';
    const lines = [cut(w.name, letters)];
    if (high >= this.rowHeight) {
      if (w.layer_count > 0) lines.push(cut(layersOf(w), letters));
      const third = w.state === 'loading' && w.bytes_total > 0 ? Math.floor(100 * w.bytes_loaded / w.bytes_total) + ' %' : hopMs(w) > 0 ? ms(hopMs(w)) : '';
      lines.push(cut(third, letters));
    }
    b.texts.forEach((t, i) => {
      put(t, lines[i] ?? '');
      t.setAttribute('x', this.large ? 12 : 9);
      t.setAttribute('y', high < this.rowHeight ? high / 2 + 5 : this.large ? 29 + 24 * i : 20 + 17 * i);
      t.classList.toggle('far', high >= this.rowHeight);
    });
    put(b.tip, `${w.name}, ${w.kind}, ${w.state}${w.layer_count > 0 ? ', layers ' + layersOf(w) : ''}`);
  }

  // leave lets a block fade; it is gone after three seconds.
  leave(id, b) {
    if (this.leaving.has(id)) return;
    this.leaving.add(id);
    b.group.classList.add('leaves');
    setTimeout(() => {
      if (!this.leaving.delete(id)) return;
      b.group.remove();
      this.blocks.delete(id);
    }, leaveMs);
  }

  mark(id, name = 'marked') {
    for (const [key, b] of this.blocks) b.group.classList.toggle(name, key === id);
  }

  summary(room, chain, door) {
    const seats = chain.map(w => `${w.name} ${layersOf(w)}`).join(', ');
    return chain.length ? `${room.model.name}: ${seats}.${door.length ? ` ${n0(door.length)} more in reserve or joining.` : ''}` : 'Nobody holds layers yet.';
  }
}

const barHeight = 34, nameHeight = 18;

// A Way is one token's milliseconds, hop by hop.
export class Way {
  constructor(root) {
    this.root = root;
    this.head = svg('line', {class: 'playhead', y1: 0, y2: barHeight, visibility: 'hidden'});
    this.bars = svg('g');
    const pattern = (id, ...lines) => svg('pattern', {id: 'hatch-' + id, width: 8, height: 8, patternUnits: 'userSpaceOnUse'}, svg('rect', {width: 8, height: 8, class: 'fill-' + id}), ...lines.map(d => svg('path', {d, class: 'hatch-line'})));
    this.svg = svg('svg', {role: 'img', 'aria-label': 'No token yet', class: 'token'}, svg('defs', null,
      pattern('queue', 'M0 4h8'), pattern('wire', 'M-2 2l4-4M0 8l8-8M6 10l4-4'), pattern('compute'), pattern('readback', 'M4 0v8'), pattern('coordinator', 'M0 0l8 8M0 8l8-8')), this.bars, this.head);
    root.append(this.svg);
  }

  // draw takes {total, coordinator, hops: [{id, name, queue, wire, compute, readback}]}.
  draw(token) {
    this.token = token;
    const width = Math.max(200, this.root.clientWidth);
    this.segments = [];
    for (const h of token.hops) for (const p of parts) this.segments.push({id: h.id, name: h.name, part: p, ms: h[p]});
    this.segments.push({id: '', name: 'coordinator', part: 'coordinator', ms: token.coordinator});
    const total = this.segments.reduce((sum, s) => sum + s.ms, 0) || 1;
    this.total = total;
    let x = 0;
    const nodes = [];
    for (const s of this.segments) {
      s.x = x;
      s.width = width * s.ms / total;
      x += s.width;
      if (s.width > 0.2) nodes.push(svg('rect', {x: s.x.toFixed(2), y: 0, width: s.width.toFixed(2), height: barHeight, fill: `url(#hatch-${s.part})`}, svg('title', null, `${s.name}: ${s.part} ${ms(s.ms)}`)));
    }
    for (const h of token.hops) {
      const own = this.segments.filter(s => s.id === h.id);
      const from = own[0].x, wide = own.reduce((sum, s) => sum + s.width, 0);
      nodes.push(svg('line', {class: 'edge', x1: from.toFixed(2), x2: from.toFixed(2), y1: 0, y2: barHeight + 5}));
      const letters = Math.floor(wide / 7.2);
      if (letters >= 3) nodes.push(svg('text', {x: (from + 3).toFixed(1), y: barHeight + nameHeight - 3}, h.name.length <= letters ? h.name : h.name.slice(0, letters - 1) + '…'));
    }
    this.bars.replaceChildren(...nodes);
    this.svg.setAttribute('viewBox', `0 0 ${width} ${barHeight + nameHeight}`);
    this.svg.setAttribute('width', width);
    this.svg.setAttribute('height', barHeight + nameHeight);
    this.svg.setAttribute('aria-label', `${ms(total)} in all: ` + token.hops.map(h => `${h.name} ${parts.map(p => `${p} ${ms(h[p])}`).join(', ')}`).join('; ') + `; coordinator ${ms(token.coordinator)}`);
  }

  // at shows the moment when a share of the way is done, and says where it is.
  at(share) {
    const x = share * this.root.clientWidth;
    this.head.setAttribute('visibility', share === null ? 'hidden' : 'visible');
    if (share === null) return null;
    this.head.setAttribute('x1', x);
    this.head.setAttribute('x2', x);
    return this.segments.findLast(s => s.x <= x + 0.01 && s.width > 0) ?? this.segments[0];
  }
}
