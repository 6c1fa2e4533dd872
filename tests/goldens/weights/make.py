"""Writes the files in this folder with the reference implementation of safetensors.

    python make.py        (needs torch, numpy and safetensors)
"""

import json
import struct
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save_file

HERE = Path(__file__).parent
COMPUTABLE = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def hex_of(tensor: torch.Tensor) -> str:
    flat = tensor.detach().contiguous().reshape(-1)
    return (flat.view(torch.uint8) if flat.numel() else torch.empty(0, dtype=torch.uint8)).numpy().tobytes().hex()


def expected(tensors: dict[str, torch.Tensor]) -> dict:
    """Shape, stored bytes, and for floating-point tensors the bits of the values as float32."""
    result = {}
    for name, tensor in tensors.items():
        entry = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "bytes": hex_of(tensor)}
        if tensor.dtype in COMPUTABLE:
            entry["float32"] = hex_of(tensor.to(torch.float32))
        result[name] = entry
    return result


def save_expected(name: str, tensors: dict[str, torch.Tensor]) -> None:
    (HERE / f"{name}.expected.json").write_text(json.dumps(expected(tensors), indent=1) + "\n")


def dtypes() -> None:
    bits16 = [0x0000, 0x8000, 0x0001, 0x8001, 0x0200, 0x03FF, 0x0400, 0x3555, 0x3C00, 0xC000, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0xFE01]
    bits16 += [0x007F, 0x0080, 0x3F80, 0x3F81, 0x4049, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0]
    words = torch.tensor(np.array(bits16, dtype=np.uint16).view(np.int16))
    f32 = torch.tensor([0.0, -0.0, 1.0, -1.5, 3.4028235e38, 1.1754944e-38, 1e-45, float("inf"), -float("inf"), float("nan")])
    f64 = torch.tensor([0.1, -1e-300, 1e300, 16777217.0, 1 + 2**-24, 1e-46, float("nan")], dtype=torch.float64)
    tensors = {
        "float16": words.view(torch.float16),
        "bfloat16": words.clone().view(torch.bfloat16).reshape(2, 13),
        "float32": f32,
        "float64": f64,
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "one": torch.full((1, 1, 1, 1), 7.0, dtype=torch.float16),
        "bool": torch.tensor([True, False, True]),
        "uint8": torch.arange(5, dtype=torch.uint8),
        "int8": torch.tensor([-128, 127], dtype=torch.int8),
        "int16": torch.tensor([-2, 3], dtype=torch.int16),
        "uint16": torch.tensor([65535], dtype=torch.uint16),
        "int32": torch.tensor([[-2], [3]], dtype=torch.int32),
        "uint32": torch.tensor([4294967295], dtype=torch.uint32),
        "int64": torch.tensor([-(2**62), 5]),
        "uint64": torch.tensor([7], dtype=torch.uint64),
        "complex64": torch.tensor([1 + 2j]),
        "float8_e4m3fn": torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn),
        "float8_e5m2": torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2),
        "float8_e4m3fnuz": torch.tensor([1.0]).to(torch.float8_e4m3fnuz),
        "float8_e5m2fnuz": torch.tensor([1.0]).to(torch.float8_e5m2fnuz),
    }
    save_file(tensors, HERE / "dtypes.safetensors", metadata={"format": "pt", "título": "日本 \"x\"\n"})
    save_expected("dtypes", tensors)


def names() -> None:
    tensors = {
        name: torch.tensor([float(i)])
        for i, name in enumerate(["постоянная", "重み.0", "emoji 🦊", 'quote " and \\', "tab\t", "", "__proto__", "constructor", "1"])
    }
    save_file(tensors, HERE / "names.safetensors")
    save_expected("names", tensors)


def odd() -> None:
    """A header of odd length and tensors at odd offsets, which the format allows and the writer avoids."""
    parts = [("b", "U8", [1], b"\x05"), ("f", "F32", [2], struct.pack("<2f", 1.25, -8)), ("h", "F16", [1], struct.pack("<e", 0.5))]
    header, data = {}, b""
    for name, dtype, shape, raw in parts:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (1 - len(text) % 2)
    file = struct.pack("<Q", len(text)) + text + data
    (HERE / "odd.safetensors").write_bytes(file)
    save_expected("odd", load(file))


def folder() -> None:
    """A pipeline folder: a sharded transformer, a VAE in two variants, a scheduler."""
    root = HERE / "pipeline"
    torch.manual_seed(0)
    for part in ("transformer", "vae", "scheduler"):
        (root / part).mkdir(parents=True, exist_ok=True)
    write = lambda path, value: (root / path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")  # noqa: E731
    write(
        "model_index.json",
        {
            "_class_name": "DiTPipeline",
            "_diffusers_version": "0.12.0.dev0",
            "id2label": {"0": "tench, Tinca tinca", "1": "goldfish, Carassius auratus", "10": "brambling, Fringilla montifringilla"},
            "scheduler": ["diffusers", "DDIMScheduler"],
            "transformer": ["diffusers", "Transformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "feature_extractor": [None, None],
            "requires_safety_checker": True,
        },
    )
    write("scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000})
    write("transformer/config.json", {"_class_name": "Transformer2DModel", "num_layers": 2})
    write("vae/config.json", {"_class_name": "AutoencoderKL", "scaling_factor": 0.18215})

    tensors = {f"blocks.{i}.{kind}": torch.randn(*shape) for i in range(2) for kind, shape in (("weight", (3, 2)), ("bias", (3,)))}
    files = ["diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors"]
    weight_map = {name: files[int(name.split(".")[1])] for name in tensors}
    for file in files:
        part = {name: tensor for name, tensor in tensors.items() if weight_map[name] == file}
        save_file(part, root / "transformer" / file, metadata={"format": "pt"})
    size = sum(tensor.numel() * 4 for tensor in tensors.values())
    write("transformer/diffusion_pytorch_model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map})
    save_expected("transformer", tensors)

    vae = {"conv.weight": torch.randn(2, 1, 3, 3)}
    save_file(vae, root / "vae" / "diffusion_pytorch_model.safetensors")
    half = {name: tensor.half() for name, tensor in vae.items()}
    save_file(half, root / "vae" / "diffusion_pytorch_model.fp16.safetensors")


if __name__ == "__main__":
    dtypes()
    names()
    odd()
    folder()
