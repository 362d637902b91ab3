// Markdown as DOM nodes. marked only cuts the text into tokens; what becomes of
// them is decided here, node by node, so no text can become markup.
import {Lexer} from './vendor/marked.js';
import {el} from './dom.js';

const deepest = 24; // nesting that is still shown as such

// safeLink lets links to the web through, and nothing else.
function safeLink(href) {
  try {
    const url = new URL(href);
    return url.protocol === 'https:' || url.protocol === 'http:' ? url.href : null;
  } catch {
    return null;
  }
}

function link(href, children) {
  const url = safeLink(href);
  if (!url) return el('span', null, ...children);
  return el('a', {href: url, rel: 'noopener noreferrer nofollow', target: '_blank'}, ...children);
}

// entities are what marked leaves in text: &amp; and its like.
const entities = {amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'"};
const plain = text => text.replace(/&(amp|lt|gt|quot|#39);/g, (_, name) => entities[name]);

function inline(tokens, depth) {
  if (depth > deepest) return tokens.map(t => t.raw);
  return tokens.map(t => {
    const inner = () => inline(t.tokens ?? [], depth + 1);
    switch (t.type) {
      case 'strong': return el('strong', null, ...inner());
      case 'em': return el('em', null, ...inner());
      case 'del': return el('del', null, ...inner());
      case 'codespan': return el('code', null, plain(t.text));
      case 'br': return el('br');
      case 'link': return link(t.href, inner());
      case 'image': return link(t.href, [t.text || t.href]); // nothing is fetched from elsewhere
      case 'checkbox': return t.checked ? '☑ ' : '☐ ';
      case 'escape': return plain(t.text);
      case 'text': return t.tokens ? el('span', null, ...inner()) : plain(t.text);
      default: return t.raw; // HTML and what else there may be: as it was written
    }
  });
}

function item(t, depth) {
  const mark = t.task && !t.tokens?.some(c => c.type === 'checkbox') ? [t.checked ? '☑ ' : '☐ '] : [];
  return el('li', null, ...mark, ...blocks(t.tokens ?? [], depth + 1));
}

function table(t, depth) {
  const cell = name => (c, i) => el(name, {class: t.align[i] ? 'align-' + t.align[i] : null}, ...inline(c.tokens, depth));
  return el('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Table'}, el('table', null,
    el('thead', null, el('tr', null, ...t.header.map(cell('th')))),
    el('tbody', null, ...t.rows.map(row => el('tr', null, ...row.map(cell('td')))))));
}

function code(t) {
  const copy = el('button', {type: 'button', class: 'quiet small', onclick: async () => {
    await navigator.clipboard?.writeText(t.text);
    copy.textContent = 'Copied';
    setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
  }}, 'Copy');
  return el('figure', {class: 'code'}, el('figcaption', null, el('span', null, (t.lang || 'text').slice(0, 40)), copy),
    el('pre', {tabindex: '0'}, el('code', null, t.text)));
}

function block(t, depth) {
  const inner = () => inline(t.tokens ?? [], depth + 1);
  switch (t.type) {
    case 'space': case 'def': return null;
    // The page has its own h1; an answer's headings stand below.
    case 'heading': return el('h' + Math.min(6, t.depth + 2), null, ...inner());
    case 'paragraph': return el('p', null, ...inner());
    case 'text': return t.tokens ? el('span', null, ...inner()) : plain(t.text);
    case 'code': return code(t);
    case 'blockquote': return el('blockquote', null, ...blocks(t.tokens, depth + 1));
    case 'list': return el(t.ordered ? 'ol' : 'ul', {start: t.ordered && t.start > 1 ? t.start : null}, ...t.items.map(i => item(i, depth)));
    case 'table': return table(t, depth);
    case 'hr': return el('hr');
    default: return el('p', null, t.raw.trim());
  }
}

function blocks(tokens, depth) {
  if (depth > deepest) return tokens.map(t => t.raw);
  return tokens.map(t => block(t, depth)).filter(node => node !== null);
}

// lexed cuts a text into block tokens; what the lexer cannot take is a
// paragraph as it was written.
function lexed(text) {
  try {
    return new Lexer({gfm: true}).lex(text);
  } catch {
    return [{type: 'paragraph', raw: text, tokens: [{type: 'text', raw: text, text}]}];
  }
}

// A Renderer shows a text that grows. Finished blocks stay as they are; only
// the last one, still open, is read again. finished is told each block's text
// once.
export class Renderer {
  constructor(root, finished = () => {}) {
    this.root = root;
    this.finished = finished;
    this.text = '';
    this.settled = 0; // characters of text whose blocks are finished
    this.open = [];   // nodes of the open block
  }

  // show takes the whole text so far; end closes the last block.
  show(text, end = false) {
    if (!text.startsWith(this.text.slice(0, this.settled))) {
      this.root.replaceChildren();
      [this.settled, this.open] = [0, []];
    }
    this.text = text;
    for (const node of this.open) node.remove();
    this.open = [];
    const tokens = lexed(text.slice(this.settled));
    tokens.forEach((t, i) => {
      const nodes = blocks([t], 0);
      this.root.append(...nodes);
      if (i < tokens.length - 1 || end) {
        this.settled += t.raw.length;
        const words = nodes.map(n => n.textContent ?? n).join(' ').trim();
        if (words) this.finished(words);
      } else {
        this.open = nodes.filter(n => typeof n !== 'string');
      }
    });
  }
}
