// Turns pair i of every head by the angle of the row's position.
//   x: rows × heads × headDim, in place; table: positions × pairs × (cos, sin)
// One invocation per pair. Bound by reading and writing the turned half once.
// args: heads, headDim, pairs, 1 where pairs are (2i, 2i+1), else (i, i+pairs).
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> rows: array<vec4<u32>>; // slot, position
@group(0) @binding(2) var<storage, read> table: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let pairs = args.a.z;
  if (id.x >= args.a.x * pairs) { return; }
  let head = id.x / pairs;
  let i = id.x % pairs;
  let base = (id.y * args.a.x + head) * args.a.y;
  let first = base + select(i, 2u * i, args.a.w == 1u);
  let second = select(first + pairs, first + 1u, args.a.w == 1u);
  let t = table[rows[id.y].y * pairs + i];
  let p = x[first];
  let q = x[second];
  x[first] = p * t.x - q * t.y;
  x[second] = p * t.y + q * t.x;
}
