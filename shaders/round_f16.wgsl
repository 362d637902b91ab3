// Rounds each row to f16 values times a power of two, as quant.RoundRow does.
//   x: rows × dim, in place
// One workgroup per row. Bound by reading x twice and writing it once.
// args: dim.
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;

var<workgroup> tree: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let dim = args.a.x;
  let base = wg.y * dim;
  var largest = 0u; // of the bits without sign: they order as magnitudes do
  for (var i = lane; i < dim; i += 64u) { largest = max(largest, bitcast<u32>(x[base + i]) & 0x7fffffffu); }
  tree[lane] = largest;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half >>= 1u) {
    if (lane < half) { tree[lane] = max(tree[lane], tree[lane + half]); }
    workgroupBarrier();
  }
  let exponent = min(tree[0] >> 23u, 253u); // biased
  var up = 1.0;
  var down = 1.0;
  if (exponent >= 142u) { // from 32768 on
    let shift = exponent - 141u; // so that the largest lies in [16384, 32768)
    down = bitcast<f32>((127u - min(shift, 126u)) << 23u);
    up = bitcast<f32>((127u + min(shift, 126u)) << 23u);
  }
  for (var i = lane; i < dim; i += 64u) {
    x[base + i] = half_value(half_bits(x[base + i] * down)) * up;
  }
}
