"""Arrays as NumPy saves them, for tests/weights/npy.test.ts: python make.py"""
import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def main() -> None:
    base = np.array([[0, 1, 2.5], [-3, 4e-5, 100]])
    arrays = {name: base.astype(kind) for name, kind in [("f8", "<f8"), ("f4", "<f4"), ("f2", "<f2"), ("big", ">f8")]}
    whole = np.array([[0, 1, 2], [3, 100, 127]])
    for kind in ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"):
        arrays[kind] = whole.astype(kind)
    arrays["columns"] = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    arrays["scalar"] = np.array(7.25)
    arrays["empty"] = np.zeros((0, 5))
    arrays["mu"] = np.linspace(-1, 1, 9)
    np.savez(HERE / "kinds.npz", **arrays)
    np.savez_compressed(HERE / "compressed.npz", **arrays)
    np.savez(HERE / "others.npz", complex=np.ones(2, complex), text=np.array(["a"]))
    expected = {name: {"shape": a.shape, "values": a.astype(np.float64).ravel().tolist()} for name, a in arrays.items()}
    (HERE / "expected.json").write_text(json.dumps(expected) + "\n")


main()
