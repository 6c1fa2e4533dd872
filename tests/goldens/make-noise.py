"""Writes noise.json: torch.randn on the CPU generator, for tests/samplers/noise.test.ts.

Run: python tests/goldens/make-noise.py   (PyTorch; written with 2.15 on x86-64)
"""

import json
from pathlib import Path

import torch

SIZES = [1, 5, 15, 16, 17, 31, 100, 3 * 64 * 64]
SEEDS = [0, 1, 42, 2**32 - 1, 2**32 + 42, 2**53 + 12345, 2**63 + 7, 2**64 - 1, -5]
SEQUENCES = [[1, 1, 1], [5, 17, 5], [15, 16, 15, 31, 1], [100, 3, 3, 100], [1, 3 * 64 * 64, 1, 2], [0, 1, 0, 16]]
EDGE = 8


def generator(seed):
    g = torch.Generator("cpu")
    g.manual_seed(seed)
    return g


def draw(g, size):
    x = torch.randn((size,), generator=g, dtype=torch.float32).double()
    if size <= 100:
        return {"size": size, "values": x.tolist()}
    return {
        "size": size,
        "head": x[:EDGE].tolist(),
        "tail": x[-EDGE:].tolist(),
        "sum": x.sum().item(),
        "sumOfSquares": (x * x).sum().item(),
    }


def main():
    golden = {
        "single": [{"seed": str(s), "draw": draw(generator(s), n)} for s in SEEDS for n in SIZES],
        "sequences": [],
    }
    for seed in (0, 42):
        for sizes in SEQUENCES:
            g = generator(seed)
            golden["sequences"].append({"seed": str(seed), "draws": [draw(g, n) for n in sizes]})
    text = json.dumps(golden, indent=0, separators=(",", ":")).replace(",\n", ",").replace("[\n", "[").replace("\n]", "]")
    Path(__file__).with_name("noise.json").write_text(text + "\n")


main()
