// Lending this computer: what it costs, one button, and then how it fares. The
// work itself is done by dedicated workers (lender.js). Nothing is fetched or kept
// before the button.
import {el, $, put, named, StateLine} from './dom.js';
import {say, n0, n1, mb, size, speed, ms, span, clock} from './strings.js';
import {Feed} from './feed.js';
import {Lender, smallestShare, together} from './lender.js';

const line = new StateLine($('#state'));
const query = new URLSearchParams(location.search);
const isPhone = /iPhone|iPad|Android|Mobile/.test(navigator.userAgent);
const steps = [smallestShare, 0.5e9, 1e9, 1.5e9, 2e9, 3e9, 4e9, 6e9, 8e9, 12e9, 16e9];
const markKey = 'potluck.lending'; // stands while weights are loading
const stalledAfter = 10_000, rateWindow = 10_000, hiddenFrom = 10_000;

let bytes = isPhone ? 0.5e9 : 2e9;
let token = '';
let backend = query.get('backend') ?? '';
let lender = null, stopping = false, losses = 0;
let status = together([]), computes = '', lastError = '', samples = [], countdown = 0, hidden = null, noticed = null, silentSince = 0;
let feed = null;

// --- before ------------------------------------------------------------------

// The token comes in the fragment, which no server sees, and leaves the address
// bar at once. A reload finds it in this tab's own storage.
function readToken() {
  token = decodeURIComponent(location.hash.slice(1));
  if (token) history.replaceState(null, '', location.pathname + location.search);
  try {
    if (token) sessionStorage.setItem('potluck.token', token);
    else token = sessionStorage.getItem('potluck.token') ?? '';
  } catch { /* a browser that keeps nothing */ }
}

const kindOf = () => isPhone ? (/iPad|Tablet/.test(navigator.userAgent) ? 'tablet' : 'phone') : 'laptop';

function deviceName() {
  const agent = navigator.userAgent;
  const browser = /Edg\//.test(agent) ? 'Edge' : /Firefox\//.test(agent) ? 'Firefox' : /Chrome\//.test(agent) ? 'Chrome' : /Safari\//.test(agent) ? 'Safari' : 'Browser';
  const system = /Windows/.test(agent) ? 'Windows' : /Android/.test(agent) ? 'Android' : /iPhone|iPad/.test(agent) ? 'iOS' : /Mac/.test(agent) ? 'macOS' : /CrOS/.test(agent) ? 'ChromeOS' : 'Linux';
  return `${kindOf()}, ${browser} on ${system}`;
}

function showMemory() {
  put($('#memory'), size(bytes));
  $('#less').disabled = bytes <= steps[0];
  $('#more').disabled = bytes >= steps.at(-1);
}

function step(by) {
  const at = steps.findIndex(s => s >= bytes);
  bytes = steps[Math.min(steps.length - 1, Math.max(0, (at < 0 ? steps.length : at) + by))];
  showMemory();
}

const onlyChat = () => { location.href = './'; };

// look says what is in the way, before anything is fetched.
async function look() {
  if (!isSecureContext) {
    $('#lend').hidden = true;
    line.show('insecure', {}, {'Continue': () => { location.href = 'https://' + location.host + '/join#' + encodeURIComponent(token); }});
    return;
  }
  if (!token) {
    $('#lend').hidden = true;
    line.show('token', {}, {'Type the code': typeCode});
    return;
  }
  $('#lend').hidden = false;
  const mark = readMark();
  if (mark) {
    writeMark(null);
    offerHalf('killed', mark.bytes);
    return;
  }
  if (backend) return;
  if (!navigator.gpu) {
    onlyProcessor('no-webgpu');
    return;
  }
  try {
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) onlyProcessor('no-webgpu');
    else if ((adapter.info ?? adapter).isFallbackAdapter || /swiftshader|llvmpipe/i.test(`${adapter.info?.architecture} ${adapter.info?.description}`)) onlyProcessor('software-gpu');
  } catch {
    onlyProcessor('no-webgpu');
  }
}

function onlyProcessor(id) {
  if (lender) return;
  backend = 'cpu';
  put($('#lend'), 'Lend the processor');
  line.show(id, {}, {'Only chat': onlyChat});
}

function offerHalf(id, from) {
  const half = Math.max(steps[0], from / 2);
  line.show(id, {half: size(half)}, {'Lend {half}': () => { bytes = half; showMemory(); lend(); }, 'Only chat': onlyChat});
}

function typeCode() {
  $('#code-form').hidden = false;
  $('#code').focus();
}

// --- the mark of a tab that was loading ----------------------------------------

function readMark() {
  try {
    return JSON.parse(localStorage.getItem(markKey));
  } catch {
    return null;
  }
}

function writeMark(value) {
  try {
    if (value) localStorage.setItem(markKey, JSON.stringify(value));
    else localStorage.removeItem(markKey);
  } catch { /* only the hint is lost */ }
}

// --- lending -------------------------------------------------------------------

function lend() {
  if (lender) return;
  stopping = false;
  [status, samples, computes, lastError, noticed] = [together([]), [], '', '', null];
  $('#offer').hidden = true;
  $('#lending').hidden = false;
  $('#details').hidden = true;
  line.say(say.measuring);
  const name = ($('#name').value.trim() || $('#name').placeholder).slice(0, 32);
  keepName(name);
  lender = new Lender({token, name, device: deviceName(), bytes, backend}, heard);
  feed = new Feed().start();
  feed.addEventListener('change', drawRoom);
  feed.addEventListener('snapshot', ({detail}) => {
    build ??= detail.build;
    if (build !== detail.build && status.state !== 'working') location.reload();
  });
  navigator.wakeLock?.request('screen').catch(() => { /* the screen may sleep, then */ });
}

let build;

function keepName(name) {
  try {
    localStorage.setItem('potluck.name', name);
  } catch { /* it is asked again next time */ }
}

function heard(message) {
  if (message.status) {
    status = message.status;
    computes = message.backend ?? computes;
    if (status.state === 'loading') {
      writeMark({bytes});
      sample();
    } else {
      writeMark(null);
      samples = [];
    }
    if (status.state === 'rejoining') {
      countdown = Date.now() + (status.retry_ms ?? 0);
      silentSince ||= Date.now();
    } else if (status.state !== 'joining') {
      silentSince = 0;
    }
    if (status.error) fault(status.error);
    show();
  }
  if (message.error) {
    lastError = message.error;
    fault(message.error);
  }
  if (message.ended) over(lastError || status.error);
}

const restart = () => { quit(); lend(); };

// fault shows what the worker complains of.
function fault(text) {
  $('#details').hidden = false;
  put($('#details-text'), text);
  if (/device.{0,20}lost|lost.{0,20}device/i.test(text)) {
    losses++;
    noticed = losses < 3 ? () => line.show('device-lost', {}, {'Restart': restart}) : () => halfAgain('device-lost');
    if (losses < 3 && lender) restart();
  }
}

function halfAgain(id) {
  const half = Math.max(steps[0], bytes / 2);
  line.show(id, {half: size(half)}, {'Restart': () => { bytes = half; showMemory(); restart(); }});
}

// over is called when the worker has ended, by itself or as asked.
async function over(error) {
  quit();
  writeMark(null);
  $('#lending').hidden = true;
  $('#offer').hidden = false;
  $('#lend').hidden = true;
  const again = () => { $('#lend').hidden = false; lend(); };
  if (stopping || !error) {
    await ended(again);
  } else if (/token|invitation|unauthori[sz]ed/i.test(error)) {
    token = '';
    line.show('token', {}, {'Type the code': typeCode});
  } else if (/version/i.test(error)) {
    line.show('version', {}, {'Reload': () => location.reload()});
  } else if (/memory|allocat/i.test(error)) {
    const room = await snapshot();
    const need = room ? room.model.bytes / Math.max(1, room.model.layers) : bytes;
    line.show('low-memory', {have: size(bytes), need: size(need)}, {'Try again': again, 'Only chat': onlyChat});
  } else {
    const short = error.length > 120 ? error.slice(0, 120) + '…' : error;
    line.show('error', {what: (short.charAt(0).toUpperCase() + short.slice(1)).replace(/\.$/, ''), next: 'Nothing that was fetched is lost'},
      {'Retry': again, 'Details': () => { $('#details').hidden = false; $('#details').open = true; }});
  }
}

async function snapshot() {
  try {
    return await (await fetch('/v1/cluster', {cache: 'no-store'})).json();
  } catch {
    return null;
  }
}

async function ended(again) {
  let used = 0;
  try {
    used = (await navigator.storage.estimate()).usage ?? 0;
  } catch { /* this browser does not tell */ }
  line.show('ended', {x: n1(used / 1e9)}, {'Lend again': again, 'Delete them': async () => {
    try {
      const root = await navigator.storage.getDirectory();
      await root.removeEntry('pieces', {recursive: true});
    } catch { /* nothing was kept */ }
    await ended(again);
  }});
}

function quit() {
  lender?.quit();
  lender = null;
  feed?.stop();
  feed = null;
}

function stop() {
  stopping = true;
  const mine = lender;
  mine?.stop();
  line.say('Stopping…');
  setTimeout(() => { if (lender === mine && mine) over(); }, 1500);
}

// --- showing -------------------------------------------------------------------

function sample() {
  const now = performance.now();
  const last = samples.at(-1);
  if (last && status.loaded < last.loaded) samples = []; // a new plan, a new bar
  if (!last || status.loaded !== last.loaded) samples.push({at: now, loaded: status.loaded});
  samples = samples.filter((s, i) => now - s.at <= rateWindow || i === samples.length - 1);
}

// range fills "layers {a} to {b}"; several workers may hold more than one range.
function range() {
  const [[a, b] = [0, 0], ...others] = status.spans;
  return {a: n0(a), b: [n0(b), ...others.map(([from, to]) => `${n0(from)} to ${n0(to)}`)].join(', ')};
}

function show() {
  if (!lender || stopping) return;
  const handlers = {'Stop lending': stop};
  const bar = $('#bar');
  bar.hidden = status.state !== 'loading' || !(status.total > 0);
  if (noticed) { noticed(); return; }
  switch (status.state) {
    case 'loading': {
      const {loaded, total} = status;
      bar.max = total || 1;
      bar.value = Math.min(loaded, total);
      const first = samples[0], last = samples.at(-1);
      if (last && performance.now() - last.at > stalledAfter) {
        line.show('stalled', {loaded: mb(loaded)}, handlers);
        break;
      }
      const seconds = (performance.now() - first.at) / 1000;
      const rate = seconds > 0.2 ? (last.loaded - first.loaded) / seconds : 0;
      line.show('loading', {loaded: mb(Math.min(loaded, total)), total: mb(total), rate: n1(rate / 1e6), left: span(rate > 0 ? (total - loaded) / rate : NaN)}, handlers);
      break;
    }
    case 'working':
      line.show('working', {tok_s: speed(status.tok_s), n: n0(status.tokens), ...range()}, handlers);
      break;
    case 'ready':
    case 'idle':
      if (status.spans.length) line.show('idle', range(), handlers);
      else line.show('spare', {}, handlers);
      break;
    case 'rejoining':
      if (silentSince && Date.now() - silentSince > 60_000) line.show('gone', {time: clock(new Date(silentSince))}, {'Try now': restart});
      else line.show('rejoining', {s: n0(Math.max(1, Math.round((countdown - Date.now()) / 1000)))}, {'Try now': restart});
      break;
    case 'measuring': line.say(say.measuring); break;
    case 'joining': if (!silentSince) line.say(say.joining);
  }
  drawFacts();
}

const mine = worker => status.ids.includes(worker.id);

function drawFacts() {
  const hops = (feed?.room?.workers ?? []).filter(mine).map(w => Object.values(w.hop_ms ?? {}).reduce((a, b) => a + b, 0)).filter(Boolean);
  const rows = [['Computes on', computes], ['Small workers', status.workers > 1 ? `${n0(status.connected)} of ${n0(status.workers)} in the room` : ''],
    ['Weights here', status.weight_bytes ? size(status.weight_bytes) : ''], ['Tokens served', status.tokens ? n0(status.tokens) : ''],
    ['One hop', hops.length ? ms(hops.reduce((a, b) => a + b, 0) / hops.length) : '']];
  put($('#facts'), ...rows.filter(r => r[1]).flatMap(([term, value]) => [el('dt', null, term), el('dd', null, value)]));
}

// drawRoom shows who holds which layers, this computer among them.
function drawRoom() {
  const {model, workers} = feed.room;
  const strip = $('#strip');
  const holding = workers.filter(w => w.layer_count > 0);
  const share = x => (100 * x / Math.max(1, model.layers)).toFixed(3);
  const lines = holding.map(w => [w.layer_first, w.layer_count, mine(w), w.name]);
  strip.setAttribute('aria-label', holding.map(w => `${mine(w) ? 'This computer' : w.name}: layers ${w.layer_first} to ${w.layer_first + w.layer_count - 1}`).join('; ') || 'Nobody holds layers yet');
  const cells = lines.map(([first, count, me, name]) => {
    const cell = el('span', {class: me ? 'mine' : '', title: me ? 'This computer' : name}, me ? 'You' : named(name));
    cell.style.left = share(first) + '%';
    cell.style.width = share(count) + '%';
    return cell;
  });
  put(strip, ...cells);
}

// --- hidden, slowed ------------------------------------------------------------

const title = document.title;
document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    hidden = Date.now();
    if (lender) document.title = say.comeBack;
    return;
  }
  document.title = title;
  const away = hidden ? Date.now() - hidden : 0;
  hidden = null;
  ticked = performance.now();
  if (lender && away >= hiddenFrom) notice('hidden', {t: span(away / 1000)}, {'OK': calm});
});

function notice(id, values, handlers) {
  noticed = () => line.show(id, values, handlers);
  show();
}

function calm() {
  noticed = null;
  show();
}

const lendLess = () => {
  noticed = null;
  bytes = Math.max(steps[0], bytes / 2);
  showMemory();
  restart();
};

let ticked = performance.now(), slow = 0;
setInterval(() => {
  const now = performance.now();
  const took = now - ticked;
  ticked = now;
  if (!lender || document.hidden) return;
  slow = took > 2000 ? slow + 1 : 0;
  if (slow === 3 && !noticed) notice('throttled', {p: n0(100_000 / took)}, {'Lend less': lendLess});
  else if (!noticed && (status.state === 'loading' || status.state === 'rejoining')) show(); // time passes
}, 1000);

// --- controls --------------------------------------------------------------------

$('#less').addEventListener('click', () => step(-1));
$('#more').addEventListener('click', () => step(1));
$('#lend').addEventListener('click', () => { line.clear(); lend(); });
$('#code-form').addEventListener('submit', e => {
  e.preventDefault();
  token = $('#code').value.trim().replace(/^.*#/, '');
  if (!token) return;
  $('#code-form').hidden = true;
  line.clear();
  look();
});
addEventListener('pagehide', () => writeMark(null));
addEventListener('hashchange', () => { if (location.hash.length > 1 && !lender) { readToken(); line.clear(); look(); } });

function begin() {
  readToken();
  let kept = '';
  try {
    kept = localStorage.getItem('potluck.name') ?? '';
  } catch { /* nothing was kept */ }
  $('#name').value = kept || `${kindOf()}-${1 + Math.floor(Math.random() * 99)}`;
  $('#name').placeholder = $('#name').value;
  if (query.get('name')) $('#name').value = query.get('name').slice(0, 32);
  showMemory();
  look();
}
begin();
