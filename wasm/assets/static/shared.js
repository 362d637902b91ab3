// Lets wasm_exec.js work over shared memory: what it hands to the browser must
// not be shared. Import it first.
const own = view => view && view.buffer && !(view.buffer instanceof ArrayBuffer)
  ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice() : view;

const {decode} = TextDecoder.prototype;
TextDecoder.prototype.decode = function (view, ...rest) { return decode.call(this, own(view), ...rest); };

const {getRandomValues} = Crypto.prototype;
Crypto.prototype.getRandomValues = function (view) {
  const mine = own(view);
  getRandomValues.call(this, mine);
  if (mine !== view) view.set(mine);
  return view;
};
