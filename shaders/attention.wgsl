// Causal attention of one row over its own slot, by online softmax in f32.
//   q, out: rows × heads × headDim; cache: slots × positions × kvHeads × headDim
// One workgroup per (head, row): 64 positions at a time, a lane each for the
// scores, then lanes take up to 4 dimensions each for the sum.
// Bound by reading the slot's keys and values once per head.
// args: heads, kvHeads, headDim, positions of a slot; scale, 1 where f16.
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> rows: array<vec4<u32>>; // slot, position
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> keys: array<u32>;
@group(0) @binding(4) var<storage, read> values: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

var<workgroup> scores: array<f32, 64>;
var<workgroup> tree: array<f32, 64>;
var<workgroup> query: array<f32, 256>;

fn cached(isValue: bool, index: u32) -> f32 {
  if (args.b.y == 1u) {
    var word = 0u;
    if (isValue) { word = values[index >> 1u]; } else { word = keys[index >> 1u]; }
    return half_value((word >> (16u * (index & 1u))) & 0xffffu);
  }
  if (isValue) { return bitcast<f32>(values[index]); }
  return bitcast<f32>(keys[index]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let heads = args.a.x;
  let dim = args.a.z;
  let width = args.a.y * dim;
  let kv = wg.x / (heads / args.a.y);
  let row = rows[wg.y];
  let count = row.y + 1u;
  let base = row.x * args.a.w * width + kv * dim;
  let start = (wg.y * heads + wg.x) * dim;
  for (var i = lane; i < dim; i += 64u) { query[i] = q[start + i]; }
  workgroupBarrier();

  var largest = -3.0e38;
  var total = 0.0;
  var sums = vec4<f32>(0.0);
  for (var first = 0u; first < count; first += 64u) {
    let p = first + lane;
    var score = -3.0e38;
    if (p < count) {
      var s = 0.0;
      let at = base + p * width;
      for (var i = 0u; i < dim; i++) { s += query[i] * cached(false, at + i); }
      score = s * bitcast<f32>(args.b.x);
    }
    tree[lane] = score;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half >>= 1u) {
      if (lane < half) { tree[lane] = max(tree[lane], tree[lane + half]); }
      workgroupBarrier();
    }
    let top = max(largest, tree[0]);
    let keep = exp(max(largest - top, -80.0)) * select(1.0, 0.0, largest < -1.0e38);
    scores[lane] = select(exp(max(score - top, -80.0)), 0.0, p >= count);
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < 64u; i++) { sum += scores[i]; }
    total = total * keep + sum;
    sums *= keep;
    let limit = min(64u, count - first);
    for (var part = 0u; part < 4u; part++) {
      let d = part * 64u + lane;
      if (d < dim) {
        var s = 0.0;
        for (var i = 0u; i < limit; i++) { s += scores[i] * cached(true, base + (first + i) * width + d); }
        sums[part] += s;
      }
    }
    largest = top;
    workgroupBarrier();
  }
  for (var part = 0u; part < 4u; part++) {
    let d = part * 64u + lane;
    if (d < dim) { y[start + d] = sums[part] / total; }
  }
}
