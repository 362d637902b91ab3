// y[row, i] += x[i or row, i]      y: rows × dim
// Bound by reading x and y and writing y once.
// args: dim, 1 where x is one row that all rows get (a bias).
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let dim = args.a.x;
  if (id.x >= dim) { return; }
  let at = id.y * dim + id.x;
  y[at] += x[select(at, id.x, args.a.y == 1u)];
}
