// Building the page's elements, and its one line of state.
import {states, fill} from './strings.js';

const svgSpace = 'http://www.w3.org/2000/svg';

function fillElement(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter(c => c !== null && c !== undefined && c !== false));
  return node;
}

// el and svg make an element; text children become text, never markup.
export const el = (name, attributes, ...children) => fillElement(document.createElement(name), attributes, children);
export const svg = (name, attributes, ...children) => fillElement(document.createElementNS(svgSpace, name), attributes, children);
export const $ = selector => document.querySelector(selector);

// put replaces what an element holds, and leaves equal text alone.
export function put(node, ...children) {
  if (children.length === 1 && typeof children[0] === 'string') {
    if (node.textContent !== children[0]) node.textContent = children[0];
    return;
  }
  node.replaceChildren(...children.flat().filter(c => c !== null && c !== undefined && c !== false));
}

// named shows a name that someone else chose.
export const named = name => el('bdi', null, name);

// A StateLine says what is going on, and what one can do about it.
export class StateLine {
  constructor(root) {
    this.root = root;
    this.text = root.querySelector('[role=status]');
    this.actions = root.querySelector('.actions');
    this.id = '';
  }

  // show shows a state. handlers are called by the names of its actions; an
  // action without a handler is left out.
  show(id, values = {}, handlers = {}) {
    const [sentence, ...actions] = states[id];
    put(this.text, fill(sentence, values));
    this.root.hidden = false;
    const key = id + JSON.stringify(Object.keys(handlers)) + (values.half ?? '');
    if (this.key !== key) {
      this.key = key;
      this.handlers = handlers;
      this.root.dataset.state = this.id = id;
      put(this.actions, ...actions.filter(a => handlers[a]).map((a, i) => el('button', {
        type: 'button', class: i ? 'quiet' : '', id: a === 'Stop lending' ? 'stop' : undefined,
        onclick: () => this.handlers[a]?.(),
      }, fill(a, values))));
    } else {
      this.handlers = handlers;
    }
  }

  // say shows a sentence that is no state.
  say(text) {
    this.key = this.id = '';
    this.root.hidden = false;
    delete this.root.dataset.state;
    put(this.text, text);
    put(this.actions);
  }

  clear() {
    this.key = this.id = '';
    put(this.text, '');
    put(this.actions);
    delete this.root.dataset.state;
    this.root.hidden = true;
  }
}
