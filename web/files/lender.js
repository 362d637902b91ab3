// What computes for a tab that lends itself: one dedicated worker, with threads
// of its own where the page is cross-origin isolated. Where it is not, workers can
// share no memory: the processor then lends several small ones, each a member of the
// room over its part of the memory. The page hears of them as of one.
import {usualThreads} from '/worker/cores.js';

const workerURL = '/worker/worker.js';
const policy = globalThis.trustedTypes?.createPolicy('potluck', {
  createScriptURL: url => {
    if (url !== workerURL) throw new TypeError('only the worker is a script here');
    return url;
  },
}) ?? {createScriptURL: url => url};

export const smallestShare = 0.25e9; // bytes: less holds hardly a layer
const nameLength = 32; // characters that a room takes

// workersFor is how many workers lend so much.
function workersFor({bytes, backend}) {
  if (crossOriginIsolated || backend !== 'cpu') return 1;
  return Math.max(1, Math.min(usualThreads(), Math.floor(bytes / smallestShare)));
}

// A Lender starts the workers and calls hear with {status, backend} of all
// together, {error} and, when the last has ended, {ended: true}.
export class Lender {
  constructor(options, hear) {
    const count = workersFor(options);
    this.hear = hear;
    this.members = Array.from({length: count}, (_, i) => {
      const part = count > 1 ? `${i + 1} of ${count}` : '';
      const member = {part, status: {}, worker: new Worker(policy.createScriptURL(workerURL), {type: 'module'})};
      member.worker.onmessage = ({data}) => this.heard(member, data);
      member.worker.onerror = e => {
        e.preventDefault();
        this.heard(member, {error: e.message || 'the worker could not be started', ended: true});
      };
      member.worker.postMessage({start: {...options, name: nameOf(options.name, part), bytes: Math.floor(options.bytes / count)}});
      return member;
    });
  }

  heard(member, {status, backend, error, ended}) {
    const told = text => text && member.part ? `${member.part}: ${text}` : text;
    if (error) this.hear({error: told(error)});
    if (ended) {
      member.worker.terminate();
      status = {state: 'ended'};
    }
    if (status) {
      member.status = status;
      this.hear({status: {...together(this.members.map(m => m.status)), error: told(status.error)}, backend});
    }
    if (this.members.every(m => m.status.state === 'ended')) this.hear({ended: true});
  }

  // stop asks all to leave in order; quit ends them at once.
  stop() {
    for (const {worker} of this.members) worker.postMessage({stop: true});
  }

  quit() {
    this.hear = () => {};
    for (const {worker} of this.members) worker.terminate();
  }
}

function nameOf(name, part) {
  const suffix = part && ' · ' + part;
  return [...name].slice(0, nameLength - suffix.length).join('') + suffix;
}

// States, what says most first: one worker that comes back does not hide that the
// others compute.
const order = ['working', 'loading', 'ready', 'idle', 'joining', 'measuring', 'rejoining', 'ended'];

// together is what several workers' statuses come to.
export function together(statuses) {
  const sum = (key, of = statuses) => of.reduce((total, s) => total + (s[key] ?? 0), 0);
  const holding = statuses.filter(s => s.layer_count > 0).sort((a, b) => a.layer_first - b.layer_first);
  // A token passes all layers, so workers one behind the other do not add up; copies do.
  const most = key => Math.max(0, ...holding.map(h => sum(key, holding.filter(s => s.layer_first <= h.layer_first && h.layer_first < s.layer_first + s.layer_count))));
  const retries = statuses.filter(s => s.state === 'rejoining').map(s => s.retry_ms ?? 0);
  return {
    state: order.find(state => statuses.some(s => s.state === state)),
    ids: statuses.map(s => s.worker).filter(Boolean),
    workers: statuses.length,
    connected: statuses.filter(s => s.worker && s.state !== 'rejoining' && s.state !== 'joining').length,
    spans: spansOf(holding),
    loaded: sum('loaded'), total: sum('total'), weight_bytes: sum('weight_bytes'),
    tok_s: most('tok_s'), tokens: most('tokens'),
    retry_ms: Math.min(...retries),
  };
}

// spansOf joins ranges of layers that touch: [first, last] of each.
function spansOf(holding) {
  const spans = [];
  for (const {layer_first: first, layer_count: count} of holding) {
    const before = spans.at(-1), last = first + count - 1;
    if (before && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else spans.push([first, last]);
  }
  return spans;
}
