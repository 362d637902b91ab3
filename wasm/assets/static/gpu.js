// The tab's graphics device for Go: holds buffers, pipelines and recorded lists,
// and replays a list in one call. Rows go from Go's memory to the device and
// back without passing through JavaScript objects of their own.

const usage = () => GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
const ring = 3; // mapped buffers of a list: one may still be unmapping

let device, memory, finish;
const buffers = [null], pipelines = [null], lists = [null];

// attach gives access to Go's memory and its callback, once the program runs.
export function attach(instance, go) {
  memory = instance.exports.mem;
  finish = status => {
    instance.exports.potluckGPUDone(status);
    go._resume(); // or the goroutine that waits would not run
  };
}

// checked runs f within error scopes, and rejects with what they caught.
async function checked(f) {
  device.pushErrorScope('validation');
  device.pushErrorScope('out-of-memory');
  let result, thrown;
  try {
    result = await f();
  } catch (e) {
    thrown = e;
  }
  const memoryError = await device.popErrorScope(), invalid = await device.popErrorScope();
  if (thrown || memoryError || invalid) throw new Error((thrown || memoryError || invalid).message);
  return result;
}

export const potluckGPU = {
  lost: false,
  error: '',

  async open() {
    const adapter = await navigator.gpu?.requestAdapter({powerPreference: 'high-performance'});
    if (!adapter) throw new Error('this browser gives no graphics access');
    const wanted = ['maxBufferSize', 'maxStorageBufferBindingSize'];
    const requiredLimits = Object.fromEntries(wanted.map(name => [name, adapter.limits[name]]));
    try {
      device = await adapter.requestDevice({requiredLimits});
    } catch {
      device = await adapter.requestDevice(); // some promise limits that they do not keep
    }
    device.lost.then(() => { potluckGPU.lost = true; });
    device.addEventListener('uncapturederror', e => { potluckGPU.error = e.error.message; });
    const {vendor, architecture, description, isFallbackAdapter} = adapter.info;
    const name = [vendor, architecture || description].filter(Boolean).join(' ') || 'unknown';
    return {
      name,
      software: Boolean(isFallbackAdapter ?? adapter.isFallbackAdapter) || /swiftshader|llvmpipe|basic render/i.test(name),
      maxBinding: Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize, 2 ** 31 - 4),
    };
  },

  buffer: size => checked(() => {
    buffers.push(device.createBuffer({size, usage: usage()}));
    return buffers.length - 1;
  }),

  free(index) {
    buffers[index]?.destroy();
    buffers[index] = null;
  },

  pipeline: code => checked(async () => {
    const module = device.createShaderModule({code});
    const {messages} = await module.getCompilationInfo();
    const wrong = messages.find(m => m.type === 'error');
    if (wrong) throw new Error(`line ${wrong.lineNum}: ${wrong.message}`);
    // Not layout 'auto': it leaves out bindings that a variant does not use.
    const entries = [...code.matchAll(/@binding\((\d+)\) var<(uniform|storage, read_write|storage, read)>/g)].map(([, binding, kind]) => ({
      binding: Number(binding),
      visibility: GPUShaderStage.COMPUTE,
      buffer: {type: {uniform: 'uniform', 'storage, read': 'read-only-storage', 'storage, read_write': 'storage'}[kind]},
    }));
    const groups = device.createBindGroupLayout({entries});
    const layout = device.createPipelineLayout({bindGroupLayouts: [groups]});
    const pipeline = await device.createComputePipelineAsync({layout, compute: {module, entryPoint: 'main'}});
    pipelines.push({pipeline, groups});
    return pipelines.length - 1;
  }),

  record: flat => checked(() => {
    let at = 0;
    const next = () => flat[at++];
    const transfers = () => Array.from({length: next()}, () => ({buffer: buffers[next()], bytes: next()}));
    const list = {in: transfers(), dispatches: [], out: null, staging: [], turn: 0};
    const count = next();
    const args = device.createBuffer({size: Math.max(256, count * 256), usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST});
    const words = new Uint32Array(Math.max(64, count * 64));
    for (let i = 0; i < count; i++) {
      const {pipeline, groups} = pipelines[next()], x = next(), y = next(), z = next();
      for (let k = 0; k < 8; k++) words[i * 64 + k] = next();
      const entries = [{binding: 0, resource: {buffer: args, offset: i * 256, size: 32}}];
      for (let k = next(), b = 1; k > 0; k--, b++) entries.push({binding: b, resource: {buffer: buffers[next()]}});
      list.dispatches.push({pipeline, x, y, z, group: device.createBindGroup({layout: groups, entries})});
    }
    device.queue.writeBuffer(args, 0, words);
    list.args = args;
    list.out = transfers();
    lists.push(list);
    return lists.length - 1;
  }),

  freeList(index) {
    const list = lists[index];
    if (!list) return;
    lists[index] = null;
    list.args.destroy();
    for (const s of list.staging) s.destroy();
  },

  close() {
    device?.destroy();
  },
};

function staging(list, size) {
  const i = list.turn++ % ring;
  if (!list.staging[i] || list.staging[i].size < size) {
    list.staging[i]?.destroy();
    list.staging[i] = device.createBuffer({size: Math.max(16, size), usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST});
  }
  return list.staging[i];
}

function run(index, rows, input, inBytes, output, outBytes) {
  const list = lists[index];
  let at = input;
  for (const {buffer, bytes} of list.in) {
    device.queue.writeBuffer(buffer, 0, memory.buffer, at, rows * bytes);
    at += rows * bytes;
  }
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  let last;
  for (const {pipeline, group, x, y, z} of list.dispatches) {
    if (pipeline !== last) pass.setPipeline(last = pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y * rows, z);
  }
  pass.end();
  const back = staging(list, outBytes);
  let offset = 0;
  for (const {buffer, bytes} of list.out) {
    encoder.copyBufferToBuffer(buffer, 0, back, offset, rows * bytes);
    offset += rows * bytes;
  }
  device.queue.submit([encoder.finish()]);
  back.mapAsync(GPUMapMode.READ, 0, Math.max(16, outBytes)).then(() => {
    new Uint8Array(memory.buffer, output, outBytes).set(new Uint8Array(back.getMappedRange(0, Math.max(16, outBytes)), 0, outBytes));
    back.unmap();
    finish(0);
  }, e => {
    potluckGPU.error = String(e && e.message || e);
    finish(1);
  });
}

// gpuImports are the functions that Go calls past syscall/js.
export const gpuImports = {
  run,
  write: (buffer, offset, data, bytes) => device.queue.writeBuffer(buffers[buffer], offset, memory.buffer, data, bytes),
};
