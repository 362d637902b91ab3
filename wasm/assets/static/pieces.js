// Fetches pieces by their hashes, verifies them, and keeps them in the origin's
// private file system, so that nothing is fetched twice.

const attempts = 6;
let folder; // a promise of the folder, or of null where there is none

function open() {
  folder ??= (async () => {
    try {
      const root = await navigator.storage.getDirectory();
      return await root.getDirectoryHandle('pieces', {create: true});
    } catch {
      return null; // private windows of some browsers have none
    }
  })();
  return folder;
}

// Chromium's file system now and then never answers; nothing waits for it forever.
const keepMs = 2000, readMs = 15000;

const within = (ms, promise) => Promise.race([promise, new Promise(done => setTimeout(done, ms, null))]);

const hex = buffer => Array.from(new Uint8Array(buffer), b => b.toString(16).padStart(2, '0')).join('');

async function matches(data, hash) {
  return hex(await crypto.subtle.digest('SHA-256', data)) === hash;
}

// A handle that nothing refers to may be collected while it opens its file, and
// then its promise never settles (seen in Chromium): these are being used.
const inUse = new Set();

async function withFile(dir, hash, options, use) {
  const file = await dir.getFileHandle(hash, options);
  inUse.add(file);
  try {
    return await use(file);
  } finally {
    inUse.delete(file);
  }
}

async function kept(hash, size) {
  const dir = await open();
  if (!dir) return null;
  try {
    return await withFile(dir, hash, {}, async handle => {
      const file = await handle.getFile();
      if (size >= 0 && file.size !== size) return null;
      const data = new Uint8Array(await file.arrayBuffer());
      return await matches(data, hash) ? data : null;
    });
  } catch {
    return null;
  }
}

// Storage that takes longer than this for one piece is used no more.
const patience = 10_000; // milliseconds

async function keep(hash, data) {
  const dir = await open();
  if (!dir) return;
  let timer;
  const late = new Promise(done => { timer = setTimeout(done, patience, true); });
  if (await Promise.race([write(dir, hash, data), late])) folder = Promise.resolve(null);
  clearTimeout(timer);
}

async function write(dir, hash, data) {
  try {
    await withFile(dir, hash, {create: true}, async file => {
      const handle = await file.createSyncAccessHandle();
      try {
        handle.truncate(0);
        handle.write(data, {at: 0});
        handle.flush();
      } finally {
        handle.close();
      }
    });
  } catch {
    // A full disk, or another tab at the same file: only the cache is lost.
    try { await dir.removeEntry(hash); } catch { /* was never there */ }
  }
}

// fetchPiece resolves to the verified bytes of a piece; size -1 is any size.
export async function fetchPiece(url, hash, size) {
  const found = await within(readMs, kept(hash, size));
  if (found) return found;
  let have = [], length = 0, last;
  for (let attempt = 0; attempt < attempts; attempt++) {
    if (attempt) await new Promise(done => setTimeout(done, 250 << attempt));
    try {
      const response = await fetch(url, {headers: length ? {Range: `bytes=${length}-`} : {}, cache: 'no-store'});
      if (response.status === 404 || response.status === 403) throw Object.assign(new Error(`${url}: ${response.status}`), {final: true});
      if (!response.ok) throw new Error(`${url}: ${response.status}`);
      if (response.status !== 206) [have, length] = [[], 0];
      for (const reader = response.body.getReader();;) {
        const {done, value} = await reader.read();
        if (done) break;
        have.push(value);
        length += value.length;
        if (size >= 0 && length > size) throw new Error(`${url}: more than ${size} bytes`);
      }
      const data = new Uint8Array(length);
      let at = 0;
      for (const part of have) {
        data.set(part, at);
        at += part.length;
      }
      if (await matches(data, hash)) {
        await within(keepMs, keep(hash, data));
        return data;
      }
      [have, length] = [[], 0];
      throw new Error(`${url}: the hash does not match`);
    } catch (e) {
      if (e.final) throw e;
      last = e;
    }
  }
  throw last;
}
