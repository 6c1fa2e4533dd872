"""Writes the files in this folder with the reference implementation of GGUF.

    python make.py        (needs numpy, safetensors and gguf)

kinds.gguf has metadata of every kind and tensors of every type that is read; kinds.expected.json says what is in it.
blocks.safetensors has random blocks of every type ("q4_k.bytes", uint8 [rows, bytes of a row]) and what the reference
makes of them ("q4_k.values", float32 [rows, columns]).
"""

import json
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Kind
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

HERE = Path(__file__).parent
random = np.random.default_rng(7)

# Where the float16 scales of a block lie.
HALVES = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
}


def random_blocks(kind: Type, rows: int, columns: int) -> np.ndarray:
    """Random bytes; scales finite, some zero, subnormal, negative or the largest there is."""
    elements, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (rows * columns // elements, size), dtype=np.uint8)
    for at in HALVES[kind]:
        scales = random.integers(0, 65536, len(blocks)).astype(np.uint16)
        scales[(scales & 0x7C00) == 0x7C00] &= 0xBFFF
        scales[:6] = [0, 0x8000, 1, 0x83FF, 0x7BFF, 0xFBFF]
        blocks[:, at : at + 2] = random.permutation(scales).view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


def write_blocks() -> None:
    tensors = {}
    for kind in HALVES:
        elements, _ = GGML_QUANT_SIZES[kind]
        rows, columns = (4, 512) if elements == 256 else (8, 96)
        stored = random_blocks(kind, rows, columns)
        tensors[f"{kind.name.lower()}.bytes"] = stored
        tensors[f"{kind.name.lower()}.values"] = dequantize(stored, kind)
    save_file(tensors, HERE / "blocks.safetensors")


def write_kinds() -> None:
    writer = GGUFWriter(HERE / "kinds.gguf", "flux")
    writer.add_custom_alignment(64)
    for kind, value in {
        Kind.UINT8: 200,
        Kind.INT8: -3,
        Kind.UINT16: 60000,
        Kind.INT16: -30000,
        Kind.UINT32: 4_000_000_000,
        Kind.INT32: -5,
        Kind.FLOAT32: 0.25,
        Kind.BOOL: True,
        Kind.STRING: "título 日本",
        Kind.UINT64: 2**60,
        Kind.INT64: -(2**60),
        Kind.FLOAT64: 1e300,
    }.items():
        writer.add_key_value(f"some.{kind.name.lower()}", value, kind)
    writer.add_array("some.tokens", ["", "▁a", "x" * 300])
    writer.add_array("some.scores", [0.5, -1.5, 3.0])
    writer.add_array("some.nested", [[1, 2], [3, 4]])
    writer.add_array("comfy.gguf.orig_shape.reshaped", [2, 1, 3, 64])

    values = random.standard_normal((3, 512)).astype(np.float32)
    tensors: dict[str, tuple[np.ndarray, Type, list[int]]] = {}
    for kind in (Type.F32, Type.F16, Type.BF16, *HALVES):
        raw = kind in HALVES and GGML_QUANT_SIZES[kind][0] == 256
        stored = random_blocks(kind, 3, 512) if raw else quantize(values, kind)
        tensors[f"blocks.0.{kind.name.lower()}.weight"] = (stored, kind, [3, 512])
    tensors["a.name.of.more.than.sixty-four.bytes." + "é" * 40] = (values[:1, :4].copy(), Type.F32, [1, 4])
    tensors["scalar"] = (values[0, :1].copy(), Type.F32, [1])
    tensors["convolution"] = (values[:, :18].reshape(3, 2, 3, 3).astype(np.float16), Type.F16, [3, 2, 3, 3])
    tensors["reshaped"] = (quantize(values[:, :128].reshape(12, 32).copy(), Type.Q8_0), Type.Q8_0, [2, 1, 3, 64])
    expected = {}
    for name, (stored, kind, shape) in tensors.items():
        writer.add_tensor(name, stored, raw_dtype=kind)
        floats = dequantize(stored, kind) if kind != Type.BF16 else quantize(values, kind)
        if kind == Type.BF16:
            floats = (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        dtype = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}.get(kind.name.lower(), kind.name.lower())
        entry = {"dtype": dtype, "shape": shape, "bytes": stored.tobytes().hex()[:200], "byteLength": stored.nbytes}
        expected[name] = {**entry, "float32": floats.astype("<f4").tobytes().hex()[:2000]}
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (HERE / "kinds.expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


write_blocks()
write_kinds()
