// A thread that helps with products: an instance of the kernels over Go's memory.
// It never returns from its work; the tab's worker takes it along when it ends.
self.onmessage = async ({data: {module, memory, pool, thread}}) => {
  const {exports} = await WebAssembly.instantiate(module, {go: {mem: memory}});
  self.postMessage('ready');
  exports.help(pool, thread);
};
