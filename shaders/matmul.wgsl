// y[n, r] = w[r] · x[n]      w: rows × cols in blocks of 32, of the type appended
// LANES lanes share a row and stride over its blocks, then a tree reduces; with
// one lane a row nothing has to be reduced, which suits processors.
// Bound by reading w once a row of x.
// args: rows here, blocks a row, rows of y, first row in y.
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const LANES: u32 = 16u;
var<workgroup> tree: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let lane = index % LANES;
  // Rows beyond 65,535 workgroups fold into z.
  let row = (wg.z * 32768u + wg.x) * (64u / LANES) + index / LANES;
  let blocks = args.a.y;
  var sum = 0.0;
  if (row < args.a.x) {
    for (var b = lane; b < blocks; b += LANES) { sum += block_dot(row, b, blocks, (wg.y * blocks + b) * 8u); }
  }
  if (LANES > 1u) {
    tree[index] = sum;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
      if (lane < half) { tree[index] += tree[index + half]; }
      workgroupBarrier();
    }
    sum = tree[index];
  }
  if (row < args.a.x && lane == 0u) { y[wg.y * args.a.z + args.a.w + row] = sum; }
}
