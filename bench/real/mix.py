#!/usr/bin/env python3
"""Holds a GGUF file of mixed types, as it runs, against its own exact numbers.

For each file: the size of the store beside that of the file, and how far the
logits of the same tokens are from those of the file decoded to f32 (relative L2
over all positions): with f32 activations, where only weights differ, and with
the default 8-bit ones.
"""
import argparse
import json
import pathlib
import struct
import subprocess
import tempfile

import numpy as np


def logits(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    tensor = json.loads(data[8 : 8 + size])["logits"]
    begin, end = tensor["data_offsets"]
    return np.frombuffer(data[8 + size + begin : 8 + size + end], "<f4").astype(np.float64)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE.gguf")
    p.add_argument("--potluck", default="bin/potluck", help="the program (default: %(default)s)")
    p.add_argument("--tokens", type=int, default=64, help="how many (default: %(default)s)")
    p.add_argument("--below", type=int, default=256, help="their ids are below this (default: %(default)s)")
    o = p.parse_args()
    random = np.random.default_rng(5)
    for file in o.files:
        tokens = ",".join(map(str, random.integers(0, o.below, o.tokens)))
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            store, out = folder / "store", folder / "logits.safetensors"

            def potluck(*args):
                subprocess.run([o.potluck, *map(str, args)], check=True, capture_output=True)

            def run(*args):
                potluck("run", "--tokens", tokens, "--logits", out, *args)
                return logits(out)

            potluck("convert", file, "--weights", "source", "--out", store)
            size = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
            exact = run("--model", file, "--weights", "f32", "--activations", "f32")
            apart = [np.linalg.norm(run("--model", store, *a) - exact) / np.linalg.norm(exact) for a in (["--activations", "f32"], [])]
        print(f"{file.name}: {size / file.stat().st_size:.3f} × its size; logits {apart[0]:.1e} (f32 activations), {apart[1]:.1e} (8-bit)")


if __name__ == "__main__":
    main()
