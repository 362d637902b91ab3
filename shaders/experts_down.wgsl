// y[n, r] += weight(n, j) · (w[id(n, j), r] · x[n, j])      j ascending
// The sum goes on where the experts before these left it, one expert after
// another in f32, so a cut between experts does not change a bit of it.
// Bound by reading the chosen experts' rows once.
// args: rows of an expert, blocks a row, k, first expert here; experts here.
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> ids: array<u32>;
@group(0) @binding(5) var<storage, read> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

const LANES: u32 = 16u;
var<workgroup> tree: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let lane = index % LANES;
  let row = wg.x * (64u / LANES) + index / LANES;
  let rows = args.a.x;
  let blocks = args.a.y;
  let k = args.a.z;
  let out = wg.y * rows + row;
  var total = 0.0;
  if (row < rows && lane == 0u) { total = y[out]; }
  for (var j = 0u; j < k; j++) {
    let id = ids[wg.y * k + j];
    let here = id >= args.a.w && id < args.a.w + args.b.x;
    var sum = 0.0;
    if (row < rows && here) {
      let at = (id - args.a.w) * rows + row;
      for (var b = lane; b < blocks; b += LANES) { sum += block_dot(at, b, blocks, ((wg.y * k + j) * blocks + b) * 8u); }
    }
    if (LANES > 1u) {
      tree[index] = sum;
      workgroupBarrier();
      for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        if (lane < half) { tree[index] += tree[index + half]; }
        workgroupBarrier();
      }
      sum = tree[index];
      workgroupBarrier();
    }
    if (here) { total += weights[wg.y * k + j] * sum; }
  }
  if (row < rows && lane == 0u) { y[out] = total; }
}
