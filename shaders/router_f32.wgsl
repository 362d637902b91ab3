// Chooses each row's experts and their weights from the router's logits.
//   logits: rows × experts; ids, weights: rows × k, ids ascending
// One invocation per row: experts are few. Of equal scores the lower id wins.
// Bound by reading the logits once.
// args: experts, k, groups, groups kept; scale, sigmoid, correction, normalise.
struct Args { a: vec4<u32>, b: vec4<u32> }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> choice: array<f32>; // rows × 2 · experts: scratch
@group(0) @binding(4) var<storage, read_write> ids: array<u32>;
@group(0) @binding(5) var<storage, read_write> weights: array<f32>;

const none: f32 = -3.0e38;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) wg: vec3<u32>) {
  let experts = args.a.x;
  let k = args.a.y;
  let start = wg.y * experts;
  let scores = wg.y * 2u * experts;
  let chosen = scores + experts;
  if (args.b.y == 1u) {
    for (var e = 0u; e < experts; e++) { choice[scores + e] = 1.0 / (1.0 + exp(min(-logits[start + e], 80.0))); }
  } else {
    var largest = none;
    for (var e = 0u; e < experts; e++) { largest = max(largest, logits[start + e]); }
    var sum = 0.0;
    for (var e = 0u; e < experts; e++) {
      let p = exp(max(logits[start + e] - largest, -80.0));
      choice[scores + e] = p;
      sum += p;
    }
    for (var e = 0u; e < experts; e++) { choice[scores + e] /= sum; }
  }
  for (var e = 0u; e < experts; e++) {
    var c = choice[scores + e];
    if (args.b.z == 1u) { c += bias[e]; }
    choice[chosen + e] = c;
  }
  if (args.a.z > 1u) { drop_groups(chosen, experts / args.a.z); }
  // k rounds of the largest: a taken one is marked by its id, and put out of reach.
  var sum = 0.0;
  for (var j = 0u; j < k; j++) {
    var best = 0u;
    var value = -3.2e38;
    for (var e = 0u; e < experts; e++) {
      if (choice[chosen + e] > value) {
        value = choice[chosen + e];
        best = e;
      }
    }
    choice[chosen + best] = -3.2e38;
    // Insertion keeps the ids ascending.
    var at = j;
    while (at > 0u && ids[wg.y * k + at - 1u] > best) {
      ids[wg.y * k + at] = ids[wg.y * k + at - 1u];
      at--;
    }
    ids[wg.y * k + at] = best;
  }
  for (var j = 0u; j < k; j++) { sum += choice[scores + ids[wg.y * k + j]]; }
  var scale = bitcast<f32>(args.b.x);
  if (args.b.w == 1u) { scale /= sum + 1e-20; }
  for (var j = 0u; j < k; j++) { weights[wg.y * k + j] = choice[scores + ids[wg.y * k + j]] * scale; }
}

// drop_groups keeps the groups whose two best choices sum highest.
fn drop_groups(chosen: u32, size: u32) {
  var kept = 0u; // a bit a group
  for (var round = 0u; round < args.a.w; round++) {
    var best = 0u;
    var value = -3.2e38;
    for (var g = 0u; g < args.a.z; g++) {
      if ((kept & (1u << g)) != 0u) { continue; }
      var first = none;
      var second = none;
      for (var e = g * size; e < (g + 1u) * size; e++) {
        let c = choice[chosen + e];
        if (c > first) {
          second = first;
          first = c;
        } else if (c > second) {
          second = c;
        }
      }
      if (first + second > value) {
        value = first + second;
        best = g;
      }
    }
    kept |= 1u << best;
  }
  for (var g = 0u; g < args.a.z; g++) {
    if ((kept & (1u << g)) == 0u) {
      for (var e = g * size; e < (g + 1u) * size; e++) { choice[chosen + e] = none; }
    }
  }
}
