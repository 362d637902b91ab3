#!/usr/bin/env python3
"""Holds Potluck to llama.cpp on one GGUF file: greedy text and perplexity.

    pip install llama-cpp-python numpy safetensors
    python3 bench/real/compare.py --model SmolLM2-135M-Instruct.Q4_1.gguf

For each prompt llama.cpp answers greedily, token by token. Potluck then computes
its logits along that answer, in one pass: until they part, both write the same
text. Where Potluck's likeliest token is another one, the two have parted, and the
table says by how much the logits of the two tokens differ there in each engine.

Both engines by default quantise activations to 8 bits, each with roundings of its
own. --f32-model takes the same weights decoded to f32, which both multiply by f32
activations: what is left then is the arithmetic itself.

    potluck convert FILE.gguf --to gguf --weights f32 --out FILE.f32.gguf
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np
from safetensors.numpy import load_file

HERE = os.path.dirname(os.path.abspath(__file__))


class Potluck:
    def __init__(self, program, model, activations):
        self.program, self.model, self.activations = program, model, activations

    def run(self, *args, stdin=None):
        done = subprocess.run([self.program, *args, "--model", self.model], input=stdin, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"potluck {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def render(self, messages):
        variables = {"messages": messages, "add_generation_prompt": True}
        return json.loads(self.run("template", stdin=json.dumps(variables) + "\n"))

    def tokens(self, text):
        return json.loads(self.run("tokenize", stdin=json.dumps(text) + "\n"))

    def logits(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "logits.safetensors")
            self.run("run", "--tokens", ",".join(map(str, ids)), "--logits", path, "--activations", self.activations)
            return load_file(path)["logits"]

    def answer(self, text, count):
        return self.run("run", "--raw", "-p", text, "--temperature", "0", "--max-tokens", str(count), "--activations", self.activations)[:-1]

    def perplexity(self, path):
        return json.loads(self.run("perplexity", "--file", path, "--json", "--activations", self.activations))["perplexity"]


class LlamaCpp:
    def __init__(self, model, context, threads, exact):
        kinds = {"type_k": 0, "type_v": 0, "flash_attn": False} if exact else {"flash_attn": True}
        self.m = llama_cpp.Llama(model, n_ctx=context, n_threads=threads, n_threads_batch=threads, n_gpu_layers=0, logits_all=True, verbose=False, **kinds)

    def tokens(self, text):
        return self.m.tokenize(text.encode(), add_bos=True, special=True)

    def text(self, ids):
        return self.m.detokenize(ids).decode(errors="replace")

    def row(self, i):
        return np.array(self.m.scores[i], dtype=np.float32)

    def answer(self, ids, count, stops):
        """The greedy continuation of ids and the logits that each token came from."""
        self.m.reset()
        self.m.eval(ids)
        answer, rows = [], []
        while len(answer) < count:
            row = self.row(len(ids) + len(answer) - 1)
            token = int(row.argmax())
            answer.append(token)
            rows.append(row)
            if token in stops:
                break
            self.m.eval([token])
        return answer, np.array(rows)

    def perplexity(self, ids):
        self.m.reset()
        self.m.eval(ids)
        total = 0.0
        for i, token in enumerate(ids[1:]):
            row = self.row(i).astype(np.float64)
            top = row.max()
            total += np.log(np.exp(row - top).sum()) - (row[token] - top)
        return float(np.exp(total / (len(ids) - 1)))


def part(potluck, theirs, prompt, answer, rows):
    """Where along the answer Potluck takes another token, and the logits there."""
    ours = potluck.logits(prompt + answer[:-1])[len(prompt) - 1 :]
    distance = np.linalg.norm(ours - rows, axis=1) / np.linalg.norm(rows, axis=1)
    for i, token in enumerate(answer):
        other = int(ours[i].argmax())
        if other != token:
            return {"at": i, "theirs": theirs.text([token]), "ours": theirs.text([other]),
                    "their gap": float(rows[i][token] - rows[i][other]), "our gap": float(ours[i][other] - ours[i][token]),
                    "median distance": float(np.median(distance[: i + 1]))}
    return {"at": None, "of": len(answer), "median distance": float(np.median(distance))}


def describe(p):
    if p["at"] is None:
        return f"never, {p['of']} tokens | | | {p['median distance']:.1e}"
    return f"after {p['at']}: {p['theirs']!r} or {p['ours']!r} | {p['their gap']:.3f} | {p['our gap']:.3f} | {p['median distance']:.1e}"


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", required=True, help="a GGUF file")
    a.add_argument("--f32-model", help="the same weights as f32 GGUF")
    a.add_argument("--potluck", default=os.path.join(HERE, "..", "..", "bin", "potluck"))
    a.add_argument("--prompts", default=os.path.join(HERE, "prompts.json"))
    a.add_argument("--text", default=os.path.join(HERE, "text.txt"))
    a.add_argument("--count", type=int, default=64, help="tokens of each answer")
    a.add_argument("--threads", type=int, default=os.cpu_count())
    o = a.parse_args()
    with open(o.prompts) as f:
        prompts = json.load(f)
    with open(o.text) as f:
        text = f.read()

    modes = [("8-bit activations", o.model, "f16", False), ("f32 activations", o.model, "f32", False)]
    if o.f32_model:
        modes.append(("f32 weights and activations", o.f32_model, "f32", True))
    engines = {}
    for title, model, activations, exact in modes:
        potluck = Potluck(o.potluck, model, activations)
        if model not in engines:
            engines.clear()
            engines[model] = LlamaCpp(model, 8192, o.threads, exact)
        theirs = engines[model]
        print(f"\n## Potluck with {title}, llama.cpp on {os.path.basename(model)}\n")
        print("| prompt | the two part | llama.cpp's logit gap | Potluck's | median distance of all logits |\n|---|---|---|---|---|")
        for p in prompts:
            rendered = potluck.render(p["messages"])
            ids = potluck.tokens(rendered)
            if ids != theirs.tokens(rendered):
                sys.exit(f"{p['name']}: the tokenizers differ")
            answer, rows = theirs.answer(ids, o.count, {theirs.m.token_eos()})
            print(f"| {p['name']} | {describe(part(potluck, theirs, ids, answer, rows))} |", flush=True)
            if title == modes[0][0]:
                p["texts"] = [theirs.text([t for t in answer if t != theirs.m.token_eos()]), potluck.answer(rendered, o.count)]
        ids = potluck.tokens(text)
        ours, reference = potluck.perplexity(o.text), theirs.perplexity(ids)
        print(f"\nPerplexity of {len(ids)} tokens: Potluck {ours:.4f}, llama.cpp {reference:.4f}, {100 * (ours / reference - 1):+.3f} %", flush=True)
    print("\n## Texts, both with 8-bit activations\n")
    for p in prompts:
        same = p["texts"][0] == p["texts"][1]
        print(f"* **{p['name']}**: {'the same: ' if same else ''}{json.dumps(p['texts'][0], ensure_ascii=False)}")
        if not same:
            print(f"  Potluck: {json.dumps(p['texts'][1], ensure_ascii=False)}")


if __name__ == "__main__":
    main()
