// y = x      rows × dim
// Bound by reading x and writing y once.
// args: dim.
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < args.a.x) { y[id.y * args.a.x + id.x] = x[id.y * args.a.x + id.x]; }
}
