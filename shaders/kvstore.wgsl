// Writes the rows' keys and values into the cache, as f16 pairs or as f32.
//   k, v: rows × width; cache: slots × positions × words
// One invocation per word. Bound by reading and writing each number once.
// args: width, positions of a slot, 1 where the cache is f16.
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> rows: array<vec4<u32>>; // slot, position
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read_write> keys: array<u32>;
@group(0) @binding(5) var<storage, read_write> values: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let packed = args.a.z == 1u;
  let words = select(args.a.x, args.a.x / 2u, packed);
  if (id.x >= words) { return; }
  let at = (rows[id.y].x * args.a.y + rows[id.y].y) * words + id.x;
  if (packed) {
    let start = id.y * args.a.x + 2u * id.x;
    keys[at] = half_bits(clamp(k[start], -65504.0, 65504.0)) | (half_bits(clamp(k[start + 1u], -65504.0, 65504.0)) << 16u);
    values[at] = half_bits(clamp(v[start], -65504.0, 65504.0)) | (half_bits(clamp(v[start + 1u], -65504.0, 65504.0)) << 16u);
  } else {
    keys[at] = bitcast<u32>(k[id.y * args.a.x + id.x]);
    values[at] = bitcast<u32>(v[id.y * args.a.x + id.x]);
  }
}
