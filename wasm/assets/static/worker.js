// The dedicated worker of a tab that lends itself: starts Go and gives it what
// only the browser has. Messages from the page: {start: options}, {stop: true};
// to the page: {status}, {error}, {ended}.
import './wasm_exec.js';
import {fetchPiece} from './pieces.js';
import {attach, gpuImports, potluckGPU} from './gpu.js';

self.potluckPost = text => self.postMessage(JSON.parse(text));
self.potluckFetch = fetchPiece;
self.potluckGPU = potluckGPU;

let started = false;
self.onmessage = ({data}) => {
  if (data.stop && self.potluckStop) self.potluckStop();
  if (data.start && !started) {
    started = true;
    start(data.start).catch(e => self.postMessage({error: String(e && e.message || e), ended: true}));
  }
};

async function start(options) {
  self.potluckOptions = JSON.stringify({base: self.location.origin, ...options});
  const go = new self.Go();
  go.importObject.gpu = gpuImports;
  const response = await fetch(new URL('potluck.wasm', import.meta.url));
  if (!response.ok) throw new Error(`The worker could not be fetched: ${response.status}. Was Potluck built with make?`);
  const {instance} = await WebAssembly.instantiateStreaming(response, go.importObject);
  attach(instance, go);
  await go.run(instance);
}
