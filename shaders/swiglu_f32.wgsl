// y[i] = silu(gu[2i]) · gu[2i+1]      gate and up rows stand interleaved
// Bound by reading gu and writing y once.
// args: numbers of y in a row.
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> gu: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= args.a.x) { return; }
  let at = id.y * args.a.x + id.x;
  let g = gu[2u * at];
  // exp is kept finite: beyond 80 silu is 0 to f32's precision.
  y[at] = g / (1.0 + exp(min(-g, 80.0))) * gu[2u * at + 1u];
}
