// What this browser keeps of a conversation, and nowhere else.

const key = 'potluck.chat';

const empty = () => ({messages: [], draft: '', settings: {}});

// A Store keeps one conversation; full is called when there is no more room.
export class Store {
  constructor(full) {
    this.full = full;
  }

  load() {
    try {
      return this.parse(localStorage.getItem(key)) ?? empty();
    } catch {
      return empty(); // a browser that keeps nothing
    }
  }

  // parse reads a conversation, and null from anything else.
  parse(text) {
    try {
      const read = JSON.parse(text);
      const roles = ['user', 'assistant', 'tool'];
      const good = Array.isArray(read.messages) && read.messages.every(m => roles.includes(m.role) && typeof m.content === 'string');
      if (!good) return null;
      const messages = read.messages.map(m => ({reasoning: '', ...m}));
      return {messages, draft: String(read.draft ?? ''), settings: {...read.settings}};
    } catch {
      return null;
    }
  }

  save(talk) {
    clearTimeout(this.timer);
    try {
      localStorage.setItem(key, JSON.stringify({messages: talk.messages, draft: talk.draft, settings: talk.settings}));
    } catch (e) {
      if (e.name === 'QuotaExceededError') this.full();
    }
  }

  later(talk) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(talk), 1000);
  }

  clear() {
    clearTimeout(this.timer);
    try {
      localStorage.removeItem(key);
    } catch { /* nothing was kept */ }
  }
}
