// The settings, and the request that they and the conversation make.
import {$} from './dom.js';

const texts = {system: '#system', temperature: '#temperature', topP: '#top-p', maxTokens: '#max-tokens', seed: '#seed', tools: '#tools'};

export function fillSettings(settings = {}) {
  for (const [name, selector] of Object.entries(texts)) $(selector).value = settings[name] ?? '';
  $('#thinking').checked = settings.thinking ?? true;
  if (settings.model) $('#model-pick').value = settings.model;
}

export function readSettings() {
  const settings = {thinking: $('#thinking').checked};
  for (const [name, selector] of Object.entries(texts)) {
    const value = $(selector).value.trim();
    if (value) settings[name] = value;
  }
  if (!$('#model-field').hidden) settings.model = $('#model-pick').value;
  return settings;
}

// number reads "0,7" as well as "0.7"; what is no number is left to the
// coordinator, which names the parameter.
function number(text) {
  const value = Number(text.replace(',', '.'));
  return Number.isNaN(value) ? text : value;
}

function message(m) {
  if (m.role === 'tool') return {role: 'tool', tool_call_id: m.call, content: m.content};
  if (m.role === 'user') return {role: 'user', content: m.content};
  const out = {role: 'assistant', content: m.content};
  if (m.reasoning) out.reasoning_content = m.reasoning;
  if (m.calls?.length) out.tool_calls = m.calls.map(c => ({id: c.id, type: 'function', function: {name: c.name, arguments: c.arguments}}));
  return out;
}

// requestBody is what the coordinator is asked; with more it goes on with the
// last answer.
export function requestBody(talk, more = false) {
  const s = talk.settings ?? {};
  const messages = talk.messages.filter((m, i) => more || i < talk.messages.length - 1 || m.role !== 'assistant').map(message);
  if (s.system) messages.unshift({role: 'system', content: s.system});
  const body = {messages, stream: true, stream_options: {include_usage: true}};
  if (s.model) body.model = s.model;
  if (s.temperature) body.temperature = number(s.temperature);
  if (s.topP) body.top_p = number(s.topP);
  if (s.maxTokens) body.max_tokens = number(s.maxTokens);
  if (s.seed) body.seed = number(s.seed);
  if (s.tools) {
    try {
      body.tools = JSON.parse(s.tools);
    } catch {
      body.tools = s.tools; // the coordinator says what is wrong
    }
  }
  if (s.thinking === false) body.chat_template_kwargs = {enable_thinking: false};
  if (more) body.continue_final_message = true;
  return body;
}

// asCurl is the same request as a command.
export function asCurl(talk, draft) {
  const messages = draft ? [...talk.messages, {role: 'user', content: draft}] : talk.messages;
  const {stream, stream_options, ...body} = requestBody({...talk, messages});
  const text = JSON.stringify({model: talk.modelID, ...body}, null, 2).replaceAll("'", "'\\''");
  return `curl ${location.origin}/v1/chat/completions \\\n  -H 'Content-Type: application/json' \\\n  -d '${text}'`;
}
