// The chat: asks, shows the answer as it comes, and keeps it in this browser.
import {el, $, put, named, StateLine} from './dom.js';
import {say, n0, n1, gb, speed, span} from './strings.js';
import {Feed, readEvents, holders, lacking} from './feed.js';
import {Renderer} from './markdown.js';
import {Store} from './store.js';
import {readSettings, fillSettings, requestBody, asCurl} from './settings.js';

const touch = matchMedia('(pointer: coarse)').matches;
const line = new StateLine($('#state'));
const log = $('#log');
const store = new Store(() => line.show('full', {}, {'Export': exportAll, 'Delete old': deleteOld}));
let talk = store.load();
let running = null; // the answer that is being made
const feed = new Feed();

// --- showing -----------------------------------------------------------------

function nearEnd() {
  return document.documentElement.scrollHeight - innerHeight - scrollY < 64;
}

function follow(was) {
  if (was) scrollTo({top: document.documentElement.scrollHeight, behavior: 'instant'});
}

function draw() {
  $('#welcome').hidden = talk.messages.length > 0;
  log.replaceChildren(...talk.messages.map((m, i) => turn(m, i)).filter(Boolean));
}

function turn(m, index) {
  if (m.role === 'user') return userTurn(m, index);
  if (m.role === 'tool') return el('article', {class: 'turn tool', 'aria-label': 'Result of a tool'}, el('pre', {tabindex: '0'}, m.content));
  return assistantTurn(m, index);
}

function userTurn(m, index) {
  return el('article', {class: 'turn user', 'aria-label': 'You'}, el('div', {class: 'bubble'}, m.content),
    el('div', {class: 'tools'}, el('button', {type: 'button', class: 'quiet small', onclick: () => edit(index)}, 'Edit')));
}

function assistantTurn(m, index) {
  const body = el('div', {class: 'answer'});
  const article = el('article', {class: 'turn assistant', 'aria-label': 'Answer'}, body);
  if (m.reasoning) {
    const thought = el('div', {class: 'answer'});
    new Renderer(thought).show(m.reasoning, true);
    body.before(el('details', {class: 'thought'}, el('summary', null, thoughtTitle(m)), thought));
  }
  new Renderer(body).show(m.content, true);
  if (m.calls?.length) article.append(...m.calls.map((c, i) => callCard(m, c, index, i)));
  if (m.error) article.append(el('p', {class: 'problem'}, m.error));
  article.append(footer(m, index));
  return article;
}

const thoughtTitle = m => m.thoughtSeconds ? `Thought for ${span(m.thoughtSeconds)}` : 'Thought';

function footer(m, index) {
  const last = index === talk.messages.length - 1;
  return el('div', {class: 'under'}, el('p', {class: 'figures'}, figures(m)), el('div', {class: 'tools'},
    el('button', {type: 'button', class: 'quiet small', onclick: e => copy(m.content, e.currentTarget)}, 'Copy'),
    last && !running ? el('button', {type: 'button', class: 'quiet small', id: 'again', onclick: again}, 'Again') : null));
}

// figures are what an answer took, and who computed it.
function figures(m) {
  if (!m.figures) return '';
  const f = m.figures;
  const parts = [];
  if (f.rate) parts.push(`${speed(f.rate)} tok/s`);
  parts.push(`${n0(f.tokens)} tokens`);
  if (f.first) parts.push(`first word after ${n1(f.first)} s`);
  const text = parts.join(', ');
  if (!f.computers?.length) return text;
  const count = f.computers.length === 1 ? '1 computer' : `${n0(f.computers.length)} computers`;
  return el('span', null, text + ', ', el('details', {class: 'who'}, el('summary', null, count), el('span', null, ...f.computers.flatMap((name, i) => [i ? ', ' : '', named(name)]))));
}

// callCard shows a function that the model wants called. Nothing is run here.
function callCard(m, call, index, at) {
  const answered = talk.messages.some(t => t.role === 'tool' && t.call === call.id);
  const id = `result-${index}-${at}`;
  const field = el('textarea', {id, rows: '2', class: 'mono'});
  return el('section', {class: 'call', 'aria-label': 'Tool call'}, el('h3', null, call.name), el('pre', {tabindex: '0'}, pretty(call.arguments)),
    answered ? null : el('form', {onsubmit: e => {
      e.preventDefault();
      talk.messages.push({role: 'tool', call: call.id, content: field.value});
      const open = m.calls.some(c => !talk.messages.some(t => t.role === 'tool' && t.call === c.id));
      draw();
      if (!open) answer();
    }}, el('label', {for: id}, 'Its result'), field, el('button', {type: 'submit', class: 'small'}, 'Send result')));
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    const before = button.textContent;
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = before; }, 1500);
  } catch {
    line.show('error', {what: 'This browser does not let the page copy', next: 'Mark the text instead'}, {});
  }
}

// --- asking ------------------------------------------------------------------

function ask(text) {
  if (running || !text.trim()) return;
  talk.messages.push({role: 'user', content: text});
  $('#text').value = talk.draft = '';
  grow();
  answer();
}

function edit(index) {
  if (running) return;
  $('#text').value = talk.messages[index].content;
  talk.messages.length = index;
  line.clear();
  draw();
  grow();
  $('#text').focus();
  store.save(talk);
}

function again() {
  if (running) return;
  while (talk.messages.length && talk.messages.at(-1).role === 'assistant') talk.messages.pop();
  if (talk.messages.length) answer();
}

// answer asks for the next answer; with more it goes on with the last one.
async function answer(more = null) {
  const m = more ?? {role: 'assistant', content: '', reasoning: ''};
  if (!more) talk.messages.push(m);
  delete m.error;
  delete m.stopped;
  m.partial = true;
  const run = running = {id: crypto.randomUUID?.() ?? String(Math.random()).slice(2, 18), m, abort: new AbortController(), began: performance.now(), chunks: 0, state: ''};
  line.clear();
  draw();
  const article = log.lastElementChild;
  run.article = article;
  article.classList.add('open');
  follow(true);
  busy(true);
  const saver = setInterval(() => store.save(talk), 1000);
  try {
    await stream(run, !!more);
    delete m.partial;
  } catch (e) {
    delete m.partial;
    failed(run, e);
  } finally {
    clearInterval(saver);
    running = null;
    busy(false);
    measure(run);
    if (!m.content && !m.reasoning && !m.calls?.length && (m.error || m.stopped)) talk.messages.splice(talk.messages.indexOf(m), 1);
    const end = nearEnd();
    draw();
    follow(end);
    store.save(talk);
    if (run.moved && !m.error && !m.stopped) line.say(say.recovered);
  }
}

async function stream(run, more) {
  const {m} = run;
  const response = await fetch('/v1/chat/completions', {
    method: 'POST', signal: run.abort.signal, cache: 'no-store',
    headers: {'Content-Type': 'application/json', 'X-Request-Id': run.id},
    body: JSON.stringify(requestBody(talk, more)),
  });
  if (!response.ok) throw await refusal(response);
  const view = new View(run);
  let done = false;
  await readEvents(response, e => {
    if (!e.data) return;
    if (e.data === '[DONE]') { done = true; return; }
    const chunk = JSON.parse(e.data);
    if (chunk.error) throw Object.assign(new Error(chunk.error.message), {told: true});
    if (chunk.usage) run.usage = chunk.usage;
    for (const c of chunk.choices ?? []) take(run, c);
    view.later();
  });
  view.finish();
  if (!done && !m.finish) throw new Error('the connection broke off');
}

function take(run, choice) {
  const {m} = run;
  const delta = choice.delta ?? {};
  const text = (delta.reasoning_content ?? '') + (delta.content ?? '');
  if (text || delta.tool_calls) {
    run.first ??= performance.now();
    run.latest = performance.now();
    run.chunks++;
    if (line.id && line.id !== 'moving' && line.id !== 'rejoining' && line.id !== 'gone') line.clear();
  }
  if (delta.reasoning_content) {
    run.thinking ??= performance.now();
    m.reasoning += delta.reasoning_content;
  }
  if (delta.content) {
    if (run.thinking && !m.content) m.thoughtSeconds = (performance.now() - run.thinking) / 1000;
    m.content += delta.content;
  }
  for (const c of delta.tool_calls ?? []) {
    m.calls ??= [];
    const call = m.calls[c.index] ??= {id: c.id, name: '', arguments: ''};
    if (c.id) call.id = c.id;
    call.name += c.function?.name ?? '';
    call.arguments += c.function?.arguments ?? '';
  }
  if (choice.finish_reason) m.finish = choice.finish_reason;
}

// A View draws an answer as it grows, at most ten times a second.
class View {
  constructor(run) {
    this.run = run;
    this.body = [...run.article.querySelectorAll(':scope > .answer')].at(-1);
    this.body.replaceChildren();
    this.text = new Renderer(this.body, words => { $('#announce').append(el('p', null, words)); });
    this.drawn = 0;
  }

  later() {
    if (this.timer) return;
    this.timer = setTimeout(() => { this.timer = 0; this.draw(false); }, Math.max(0, 100 - (performance.now() - this.drawn)));
  }

  draw(end) {
    const {m, article} = this.run;
    const was = nearEnd();
    if (m.reasoning) {
      if (!this.thought) {
        this.details = article.querySelector(':scope > details.thought');
        if (!this.details) {
          this.details = el('details', {class: 'thought'}, el('summary', null, 'Thinking'), el('div', {class: 'answer'}));
          this.body.before(this.details);
        }
        const inner = this.details.querySelector('.answer');
        inner.replaceChildren();
        this.thought = new Renderer(inner);
      }
      this.thought.show(m.reasoning, end);
      put(this.details.querySelector('summary'), m.content ? thoughtTitle(m) : 'Thinking');
    }
    this.text.show(m.content, end);
    measure(this.run);
    const f = article.querySelector('.figures');
    if (f) put(f, m.figures?.rate ? `${speed(m.figures.rate)} tok/s` : '');
    this.drawn = performance.now();
    follow(was);
  }

  finish() {
    clearTimeout(this.timer);
    this.draw(true);
    setTimeout(() => { $('#announce').replaceChildren(); }, 5000);
  }
}

// measure takes the answer's figures.
function measure(run) {
  const {m} = run;
  if (!run.first) return;
  const tokens = run.usage?.completion_tokens ?? run.chunks;
  const seconds = (run.latest - run.first) / 1000;
  m.figures = {tokens, first: (run.first - run.began) / 1000, rate: tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : 0,
    computers: feed.room ? holders(feed.room).map(w => w.name) : m.figures?.computers};
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch { /* no JSON: the status must do */ }
  return Object.assign(new Error(error.message ?? `the coordinator answered ${response.status}`), {code: error.code, missing: error.missing_bytes, told: true});
}

function failed(run, e) {
  const {m} = run;
  if (run.stopping || e.name === 'AbortError') {
    m.stopped = true;
    showStopped('stopped');
    return;
  }
  const retry = () => { line.clear(); m.content || m.reasoning ? answer(m) : again(); };
  if (e.missing && feed.room) {
    feed.room.model.missing_bytes = e.missing;
    line.show('short', lacking(feed.room, {gb, n0}), {'Invite': () => { location.href = 'room'; }, 'Cancel': () => line.clear()});
    return;
  }
  m.error = e.told ? e.message : '';
  const what = e.told ? sentence(e.message) : 'The connection broke';
  line.show('error', {what, next: e.code === 'context_length_exceeded' ? 'Begin a new conversation' : 'Your text is kept'}, {'Retry': retry});
  if (!e.told) delete m.error;
}

const sentence = text => (text.charAt(0).toUpperCase() + text.slice(1)).replace(/\.$/, '');

function showStopped(id) {
  const m = talk.messages.at(-1);
  const handlers = {'Again': again};
  if (m?.role === 'assistant' && (m.content || m.reasoning)) handlers.Continue = () => answer(m);
  line.show(id, {}, handlers);
}

function stop() {
  if (!running) return;
  running.stopping = true;
  running.abort.abort();
}

function busy(on) {
  const send = $('#send');
  send.classList.toggle('stop', on);
  send.setAttribute('aria-label', on ? 'Stop' : 'Send');
  send.querySelector('path').setAttribute('d', on ? 'M7 7h10v10H7z' : 'M4 12h15M13 6l6 6-6 6');
}

// --- the room ----------------------------------------------------------------

feed.addEventListener('request', ({detail: r}) => {
  if (!running || r.id !== running.id) return;
  const handlers = {'Stop': stop, 'Cancel': stop, 'Invite': () => open('room', '_blank', 'noopener')};
  running.state = r.state;
  switch (r.state) {
    case 'waiting':
      if (feed.room) line.show('short', lacking(feed.room, {gb, n0}), handlers);
      break;
    case 'queued':
      line.show('queued', {n: n0(r.position ?? feed.room?.requests_queued ?? 1), t: r.wait_s ? span(r.wait_s) : 'a moment'}, handlers);
      break;
    case 'prefill':
      line.show('prefill', {done: n0(r.prompt_done ?? 0), all: n0(r.prompt_total ?? 0)}, handlers);
      break;
    case 'moving': {
      running.moved = true;
      const next = feed.room && holders(feed.room)[0];
      line.show('moving', {device: next?.name ?? 'Another'}, handlers);
      break;
    }
    case 'decode':
      if (line.id !== 'error') line.clear();
  }
});

feed.addEventListener('change', () => {
  const {model, workers, build} = feed.room;
  const ready = model.missing_bytes === 0 && feed.room.chains.length > 0;
  put($('#model'), model.name);
  $('#model').dataset.ready = ready;
  $('#model').title = ready ? `Ready; ${workers.length} lend` : 'Not enough computers yet';
  feed.build ??= build;
  if (feed.build !== build && !running) line.show('version', {}, {'Reload': () => location.reload()});
});

feed.addEventListener('link', ({detail: l}) => {
  const now = {'Try now': () => feed.now()};
  if (l.up) {
    if (line.id === 'rejoining' || line.id === 'gone') line.clear();
  } else if (l.failures > 3) {
    line.show('gone', {time: new Date(l.since).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit'})}, now);
  } else if (!running) {
    line.show('rejoining', {s: n0(l.retryIn)}, now);
  }
});

async function models() {
  try {
    const {data} = await (await fetch('/v1/models')).json();
    put($('#model-pick'), ...data.map(m => el('option', {value: m.id}, m.id)));
    $('#model-field').hidden = data.length < 2;
    if ($('#model').textContent === 'Chat') put($('#model'), data[0].id);
    talk.modelID ??= data[0].id;
  } catch { /* the feed tells of a lost connection */ }
}

// --- keeping -----------------------------------------------------------------

function exportAll() {
  const url = URL.createObjectURL(new Blob([JSON.stringify(talk, null, 2)], {type: 'application/json'}));
  el('a', {href: url, download: 'potluck-chat.json'}).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function deleteOld() {
  talk.messages.splice(0, Math.ceil(talk.messages.length / 2));
  line.clear();
  draw();
  store.save(talk);
}

function begin() {
  stop();
  talk.messages = [];
  line.clear();
  draw();
  store.save(talk);
  $('#text').focus();
}

// --- controls ----------------------------------------------------------------

const text = $('#text');

function grow() {
  text.rows = Math.min(8, Math.max(1, text.value.split('\n').length));
}

text.addEventListener('input', () => {
  grow();
  talk.draft = text.value;
  store.later(talk);
});
let sending = false; // Enter is down, and means "send"
text.addEventListener('keydown', e => {
  if (e.key !== 'Enter' || e.shiftKey || e.isComposing || touch) return;
  e.preventDefault();
  sending = true;
  ask(text.value);
});
text.addEventListener('keyup', () => { sending = false; });
text.addEventListener('beforeinput', e => { if (sending && e.inputType === 'insertLineBreak') e.preventDefault(); });
$('#ask').addEventListener('submit', e => {
  e.preventDefault();
  if (running) stop();
  else ask(text.value);
});
addEventListener('keydown', e => {
  if (e.key === 'Escape' && running && !document.querySelector('dialog[open]')) stop();
  if (e.key === '?' && !e.target.closest('textarea, input, select, dialog')) $('#keys').showModal();
});
$('#new').addEventListener('click', begin);
$('#open-settings').addEventListener('click', () => {
  fillSettings(talk.settings);
  $('#settings').showModal();
});
$('#settings').addEventListener('close', () => {
  talk.settings = readSettings();
  store.save(talk);
});
$('#curl').addEventListener('click', e => {
  talk.settings = readSettings();
  copy(asCurl(talk, text.value), e.currentTarget);
});
$('#export').addEventListener('click', exportAll);
$('#import').addEventListener('click', () => $('#file').click());
$('#file').addEventListener('change', async () => {
  const file = $('#file').files[0];
  if (!file) return;
  const read = store.parse(await file.text());
  if (!read) {
    put($('#settings-error'), 'This file holds no conversation.');
    return;
  }
  talk = read;
  fillSettings(talk.settings);
  draw();
  store.save(talk);
});
$('#delete').addEventListener('click', () => {
  store.clear();
  talk = store.load();
  fillSettings(talk.settings);
  $('#settings').close();
  begin();
});
addEventListener('pagehide', () => store.save(talk));

put($('#secrets'), say.noSecrets);
text.value = talk.draft;
grow();
draw();
if (talk.messages.at(-1)?.partial) {
  delete talk.messages.at(-1).partial;
  showStopped('reloaded');
}
scrollTo(0, document.documentElement.scrollHeight);
if (!touch) text.focus();
models();
feed.start();
