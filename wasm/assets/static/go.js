// Starts a Go program over a memory that is made here, so that the kernels can be
// instantiated first, over the same memory, and Go calls them directly. Where the
// page is cross-origin isolated, the memory is shared, and threads compute in it.
import './shared.js';
import './wasm_exec.js';
import {usualThreads} from './cores.js';

const maxPages = [65536, 32768, 16384]; // of 64 KiB; some devices reserve less

// newMemory makes a memory, shared where the page may share one that large.
function newMemory(initial, shared, bytes) {
  for (const maximum of shared ? maxPages : []) {
    if (maximum * 65536 < bytes) break;
    try {
      return new WebAssembly.Memory({initial, maximum, shared: true});
    } catch { /* try a smaller one */ }
  }
  return new WebAssembly.Memory({initial, maximum: 65536});
}

const isShared = memory => !(memory.buffer instanceof ArrayBuffer);

// The kinds of kernels, best first; see wasm/simd/internal/source. What the probe
// sums up tells whether one is right here, and whether it is fast.
const kinds = [
  {name: 'relaxed SIMD in unsigned fours', file: 'kernels_unsigned', right: sum => sum === 4 * 127 * 255},
  {name: 'relaxed SIMD in fours', file: 'kernels_fours', fast: sum => sum !== 65534},
  {name: 'relaxed SIMD in pairs', file: 'kernels_pairs'},
  {name: 'SIMD', file: 'kernels_words'},
];

// loadKernels compiles the best kernels that the browser has, or those asked for.
async function loadKernels(memory, wanted) {
  const suffix = isShared(memory) ? '_shared.wasm' : '.wasm';
  for (const {name, file, right, fast} of kinds) {
    if (wanted && name !== wanted) continue;
    const response = await fetch(new URL(file + suffix, import.meta.url));
    if (!response.ok) throw new Error(`${file}: ${response.status}`);
    const bytes = await response.arrayBuffer();
    if (!WebAssembly.validate(bytes)) continue; // a browser without these vectors
    const module = await WebAssembly.compile(bytes);
    const {exports} = await WebAssembly.instantiate(module, {go: {mem: memory}});
    if (right && !right(exports.probe()) || !wanted && fast && !fast(exports.probe())) continue;
    return {name, module, exports};
  }
  return {name: '', module: null, exports: {}};
}

// startThreads starts threads - 1 that help with the products of the pool at that
// address, and resolves to how many threads compute then.
async function startThreads(module, memory, pool, threads) {
  const policy = self.trustedTypes?.createPolicy('potluck', {createScriptURL: url => url});
  const url = new URL('thread.js', import.meta.url).href;
  const ready = Array.from({length: threads - 1}, (_, i) => new Promise(done => {
    const worker = new Worker(policy ? policy.createScriptURL(url) : url, {type: 'module'});
    worker.onmessage = () => done(1);
    worker.onerror = () => done(0);
    worker.postMessage({module, memory, pool, thread: i + 1});
  }));
  await Promise.all(ready);
  return threads; // who did not start is missed, not waited for
}

// startGo instantiates the program at url; go.run(instance) then runs it. The
// kind of kernels and the number of threads are chosen where they are not given;
// bytes are what the program will need beside itself.
export async function startGo(url, imports = {}, {kernels: kind, threads, bytes = 0} = {}) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`The worker could not be fetched: ${response.status}. Was Potluck built with make?`);
  const program = new Uint8Array(await response.arrayBuffer());
  const {pages, sections} = readSections(program);
  const memory = newMemory(pages, self.crossOriginIsolated, Math.min(bytes * 1.2, maxPages[0] * 65536));
  const kernels = await loadKernels(memory, kind);
  const module = await WebAssembly.compile(importingMemory(program, sections, memory));
  const go = new self.Go();
  Object.assign(go.importObject, imports, {go: {mem: memory}, kernels: {...stubs(module), ...kernels.exports}});
  self.potluckKernels = kernels.name;
  threads ||= usualThreads();
  if (kernels.exports.share && threads > 1) self.potluckThreads = pool => startThreads(kernels.module, memory, pool, threads);
  const instance = await WebAssembly.instantiate(module, go.importObject);
  return {go, instance};
}

// stubs stand for kernels that there are none of; Go then never calls them.
function stubs(module) {
  const names = WebAssembly.Module.imports(module).filter(i => i.module === 'kernels').map(i => i.name);
  return Object.fromEntries(names.map(name => [name, () => { throw new Error(`no kernel ${name}`); }]));
}

// Go's linker gives a program a memory of its own. importingMemory makes it an
// import: the memory section goes, and the import section gets one entry more.

const importSection = 2, memorySection = 5;

function readNumber(bytes, at) { // LEB128
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++];
    value += (byte & 127) * 2 ** shift;
    if (byte < 128) return [value, at];
  }
}

function writeNumber(value) {
  const out = [];
  for (; value >= 128; value = Math.floor(value / 128)) out.push(value % 128 | 128);
  return [...out, value];
}

function readSections(bytes) {
  const sections = [];
  let pages = 0;
  for (let at = 8; at < bytes.length;) {
    const id = bytes[at], [size, start] = readNumber(bytes, at + 1);
    sections.push({id, from: at, start, end: start + size});
    if (id === memorySection) [pages] = readNumber(bytes, start + 2); // behind the count and the flags
    at = start + size;
  }
  if (!pages || !sections.some(s => s.id === importSection)) throw new Error('This is no program of Go for a browser.');
  return {pages, sections};
}

function importingMemory(bytes, sections, memory) {
  const name = text => [text.length, ...new TextEncoder().encode(text)];
  const limits = isShared(memory) ? [3, 1, ...writeNumber(65536)] : [0, 1];
  const entry = [...name('go'), ...name('mem'), 2, ...limits];
  const parts = [bytes.subarray(0, 8)];
  for (const {id, from, start, end} of sections) {
    if (id === memorySection) continue;
    if (id !== importSection) {
      parts.push(bytes.subarray(from, end));
      continue;
    }
    const [count, behind] = readNumber(bytes, start), more = writeNumber(count + 1);
    const size = writeNumber(more.length + end - behind + entry.length);
    parts.push(Uint8Array.from([id, ...size, ...more]), bytes.subarray(behind, end), Uint8Array.from(entry));
  }
  const out = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}
