// Runs the bench program as a tab's worker runs Potluck.
import {startGo} from '/worker/go.js';
import {fetchPiece} from '/worker/pieces.js';

self.potluckPost = text => self.postMessage(JSON.parse(text));
self.potluckFetch = fetchPiece;

self.onmessage = async ({data}) => {
  try {
    self.potluckOptions = JSON.stringify(data);
    const {go, instance} = await startGo('/bench.wasm', {}, {threads: data.threads, kernels: data.kernels});
    await go.run(instance);
  } catch (e) {
    self.postMessage({error: String(e?.stack ?? e)});
  }
};
