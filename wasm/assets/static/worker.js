// The dedicated worker of a tab that lends itself: starts Go and gives it what
// only the browser has. Messages from the page: {start: options}, {stop: true};
// to the page: {status}, {error}, {ended}.
import {startGo} from './go.js';
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
  const {go, instance} = await startGo(new URL('potluck.wasm', import.meta.url), {gpu: gpuImports}, {bytes: options.bytes});
  attach(instance, go);
  await go.run(instance);
}
