// y[g] = w · x[g] / sqrt(mean(x[g]²) + eps)      x, y: groups × dim, w: dim
// One workgroup per group of a row: lanes stride over it, then a tree reduces.
// Bound by reading x and writing y once.
// args: dim, groups a row, eps.
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let dim = args.a.x;
  let base = (wg.y * args.a.y + wg.x) * dim;
  var sum = 0.0;
  for (var i = lane; i < dim; i += 64u) {
    let v = x[base + i];
    sum += v * v;
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half >>= 1u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  let scale = 1.0 / sqrt(partial[0] / f32(dim) + bitcast<f32>(args.a.z));
  for (var i = lane; i < dim; i += 64u) {
    y[base + i] = x[base + i] * scale * w[i];
  }
}
