// Server-sent events over fetch, and the room as its feed tells it.

// readEvents calls each({event, id, data}) for every event of a response, until
// it ends. Comments and pings call it too, with data ''.
export async function readEvents(response, each) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', event = '', id = '', data = [], comment = false;
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (data.length || comment) await each({event, id, data: data.join('\n')});
        [event, data, comment] = ['', [], false];
        continue;
      }
      const colon = line.indexOf(':');
      if (colon === 0) { comment = true; continue; }
      const name = colon < 0 ? line : line.slice(0, colon);
      const text = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (name === 'data') data.push(text);
      else if (name === 'event') event = text;
      else if (name === 'id') id = text;
    }
  }
}

const silence = 25_000; // without a ping for so long the connection is dead
const patience = [1, 2, 4, 8, 15, 30]; // seconds between attempts

// A Feed keeps a picture of the room up to date and tells whoever listens:
// 'snapshot', 'change', 'token', 'request', 'left', 'bye', and 'link' with
// {up, retryIn, since} when the connection comes and goes.
export class Feed extends EventTarget {
  constructor() {
    super();
    this.room = null;
    this.last = '';
    this.failures = 0;
    this.heard = Date.now();
    this.ended = false;
  }

  start() {
    this.run();
    return this;
  }

  stop() {
    this.ended = true;
    this.abort?.abort();
    clearTimeout(this.timer);
    this.wake?.();
  }

  // now tries again at once.
  now() { this.wake?.(); }

  tell(name, detail) { this.dispatchEvent(new CustomEvent(name, {detail})); }

  async run() {
    while (!this.ended) {
      try {
        await this.listen();
      } catch { /* what failed does not matter: the link is down */ }
      if (this.ended) return;
      let seconds = this.retry ?? patience[Math.min(this.failures, patience.length - 1)];
      this.retry = undefined;
      this.failures++;
      for (; seconds > 0 && !this.ended; seconds--) {
        this.tell('link', {up: false, retryIn: seconds, since: this.heard, failures: this.failures});
        const woken = await new Promise(resolve => {
          this.wake = () => resolve(true);
          setTimeout(() => resolve(false), 1000);
        });
        this.wake = undefined;
        if (woken) break;
      }
    }
  }

  async listen() {
    this.abort = new AbortController();
    const watch = () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.abort.abort(), silence);
    };
    watch();
    try {
      const headers = this.last ? {'Last-Event-ID': this.last} : {};
      const response = await fetch('/v1/cluster/events', {headers, signal: this.abort.signal, cache: 'no-store'});
      if (!response.ok) throw new Error(String(response.status));
      this.failures = 0;
      this.tell('link', {up: true});
      await readEvents(response, e => {
        watch();
        this.heard = Date.now();
        if (e.id) this.last = e.id;
        if (e.event && e.event !== 'ping' && e.data) this.take(e.event, JSON.parse(e.data));
      });
    } finally {
      clearTimeout(this.timer);
    }
  }

  take(name, data) {
    const room = this.room;
    switch (name) {
      case 'snapshot':
        this.room = data;
        this.tell('snapshot', data);
        break;
      case 'worker': {
        if (!room) return;
        const at = room.workers.findIndex(w => w.id === data.id);
        if (at < 0) room.workers.push(data);
        else Object.assign(room.workers[at], data);
        break;
      }
      case 'left':
        if (!room) return;
        room.workers = room.workers.filter(w => w.id !== data.id);
        this.tell('left', data);
        break;
      case 'plan':
        if (!room) return;
        Object.assign(room, data);
        break;
      case 'stats': {
        if (!room) return;
        const {workers = [], ...totals} = data;
        Object.assign(room, totals);
        for (const changed of workers) {
          const w = room.workers.find(w => w.id === changed.id);
          if (w) Object.assign(w, changed);
          else if (changed.state) room.workers.push(changed);
        }
        break;
      }
      case 'bye':
        this.retry = Math.max(1, Math.round((data.retry_ms ?? 1000) / 1000));
        this.tell('bye', data);
        this.abort?.abort();
        return;
      default: // token, request
        this.tell(name, data);
        return;
    }
    this.tell('change', this.room);
  }
}

// holders are the workers of the chain that serves, in its order.
export function holders(room) {
  const byID = new Map(room.workers.map(w => [w.id, w]));
  return (room.chains?.[0] ?? []).map(id => byID.get(id)).filter(Boolean);
}

// lacking says how far a room is from running its model.
export function lacking(room, format) {
  const missing = room.model.missing_bytes;
  const typical = room.workers.filter(w => w.bytes > 0).sort((a, b) => a.bytes - b.bytes);
  const like = typical[Math.floor(typical.length / 2)];
  const bytes = like ? like.bytes : 2e9;
  return {model: room.model.name, x: format.gb(Math.max(missing, 1e8)), n: format.n0(Math.max(1, Math.ceil(missing / bytes))), device: like ? like.name : 'a laptop'};
}
