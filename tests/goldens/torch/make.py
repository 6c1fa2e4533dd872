"""Writes the files in this folder with PyTorch's own torch.save, and the outputs of two small DiTs.

    python make.py        (needs torch, diffusers and safetensors)
"""

import argparse
import json
import math
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from diffusers import DiTTransformer2DModel
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.serialization import config

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "weights"))
from make import expected  # noqa: E402  shape, stored bytes and float32 values of tensors

generator = torch.Generator().manual_seed(3)
randn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731


def save_expected(name: str, tensors: dict[str, torch.Tensor]) -> None:
    text = json.dumps(expected(tensors), indent=1) + "\n"
    (HERE / f"{name}.expected.json").write_text(text.replace("float8_e8m0fnu", "float8_e8m0"))  # as safetensors says


def kinds() -> None:
    """Every element type, and every way in which a contiguous tensor can lie in a storage."""
    base = randn(5, 4)
    tensors = {
        "float32": torch.tensor([0.0, -0.0, 3.4028235e38, 1e-45, float("inf"), float("nan")]),
        "float64": torch.tensor([0.1, -1e-300, 1e300], dtype=torch.float64),
        "float16": torch.tensor([[1.5, -65504.0, 6e-8]]).half(),
        "bfloat16": torch.tensor([[1.5], [-3e38], [1e-39]]).bfloat16(),
        "int64": torch.tensor([-(2**62), 5]),
        "int32": torch.tensor([[-2], [3]], dtype=torch.int32),
        "int16": torch.tensor([-2, 3], dtype=torch.int16),
        "int8": torch.tensor([-128, 127], dtype=torch.int8),
        "uint8": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "complex64": torch.tensor([1 + 2j]),
        "uint16": torch.tensor([65535, 1], dtype=torch.uint16),
        "uint32": torch.tensor([4294967295], dtype=torch.uint32),
        "uint64": torch.tensor([7], dtype=torch.uint64),
        "float8_e4m3fn": torch.tensor([1.0, -448.0]).to(torch.float8_e4m3fn),
        "float8_e5m2": torch.tensor([1.0, 2.0, 3.0]).to(torch.float8_e5m2),
        "float8_e4m3fnuz": torch.tensor([1.0]).to(torch.float8_e4m3fnuz),
        "float8_e5m2fnuz": torch.tensor([1.0]).to(torch.float8_e5m2fnuz),
        "float8_e8m0": torch.tensor([1.0]).to(torch.float8_e8m0fnu),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "base": base,
        "the same": base,
        "rows 1 and 2": base[1:3],
        "end": base.view(-1)[17:],
        "one of a column": base[3:4, 2:3],
        "parameter": nn.Parameter(base[4]),
        "重み 🦊": torch.ones(1),
        "__proto__": torch.zeros(1),
    }
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    torch.save(tensors, HERE / "kinds.pt")
    detached = {name: tensor.detach() for name, tensor in tensors.items()}
    save_expected("kinds", detached)
    small = {"a": base[:2].clone(), "b": torch.arange(3)}
    save_expected("small", small)
    for protocol in (2, 3, 4, 5):
        torch.save(small, HERE / f"protocol-{protocol}.pt", pickle_protocol=protocol)
    with config.patch("save.storage_alignment", 1024):
        torch.save(small, HERE / "aligned.pt")
    torch.save(small, HERE / "legacy.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(HERE / "protocol-2.pt") as plain, zipfile.ZipFile(HERE / "compressed.pt", "w", zipfile.ZIP_DEFLATED) as out:
        for name in plain.namelist():
            out.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), plain.read(name), zipfile.ZIP_DEFLATED)
    torch.save({"fine": base[:1].clone(), "blocks.0.weight": base[:3, :2].t()}, HERE / "transposed.pt")


def training() -> None:
    """What a training run saves: weights, their average, the optimiser, the arguments."""
    model = nn.Sequential(OrderedDict(embed=nn.Embedding(3, 2), norm=nn.BatchNorm1d(2)))
    for parameter in model.parameters():
        parameter.data = randn(*parameter.shape)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99))
    model(torch.tensor([0, 2])).sum().backward()
    optimizer.step()
    ema = OrderedDict((name, tensor.clone() * 2) for name, tensor in model.state_dict().items())
    arguments = argparse.Namespace(model="DiT-S/2", results=None, epochs=3, lr=1e-4, sizes=[1, 2])
    saved = {"model": model.state_dict(), "ema": ema, "opt": optimizer.state_dict(), "args": arguments}
    torch.save(saved, HERE / "training.pt")
    save_expected("training", ema)
    torch.save(model, HERE / "module.pt")


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def adaptive_norm(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """adaLN-Zero: figure 3 of arXiv 2212.09748."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn, self.mlp = Attention(width, heads), Mlp(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, c):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate_a[:, None] * self.attn(adaptive_norm(x, shift_a, scale_a))
        return x + gate_m[:, None] * self.mlp(adaptive_norm(x, shift_m, scale_m))


class OriginalDiT(nn.Module):
    """DiT with the parameter names of its authors' release, from the paper and the names and shapes in their files."""

    def __init__(self, size=8, patch=2, channels=4, width=16, depth=2, heads=2, classes=5):
        super().__init__()
        self.patch, self.side, self.out = patch, size // patch, 2 * channels
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(channels, width, patch, patch)})
        self.t_embedder = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))})
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(classes + 1, width)})
        self.pos_embed = nn.Parameter(self.positions(width)[None], requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final_layer = nn.ModuleDict(
            {"linear": nn.Linear(width, patch**2 * self.out), "adaLN_modulation": nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))}
        )

    def positions(self, width):
        """A quarter of the channels each: sin x, cos x, sin y, cos y."""
        omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
        y, x = torch.meshgrid(torch.arange(self.side), torch.arange(self.side), indexing="ij")
        angles = [axis.reshape(-1, 1) * omega for axis in (x, y)]
        return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1).float()

    def forward(self, x, t, y):
        x = self.x_embedder["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
        angle = t[:, None].float() * frequencies
        c = self.t_embedder["mlp"](torch.cat([angle.cos(), angle.sin()], dim=1)) + self.y_embedder["embedding_table"](y)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.final_layer["adaLN_modulation"](c).chunk(2, dim=1)
        x = self.final_layer["linear"](adaptive_norm(x, shift, scale))
        x = x.reshape(-1, self.side, self.side, self.patch, self.patch, self.out).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(-1, self.out, self.side * self.patch, self.side * self.patch)


def diffusers_of(original: OriginalDiT) -> DiTTransformer2DModel:
    """The same weights as diffusers' model, as its conversion of the release arranges them."""
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=5
    )
    given, state = original.state_dict(), {}
    for kind in ("weight", "bias"):
        state[f"pos_embed.proj.{kind}"] = given[f"x_embedder.proj.{kind}"]
        state[f"proj_out_1.{kind}"] = given[f"final_layer.adaLN_modulation.1.{kind}"]
        state[f"proj_out_2.{kind}"] = given[f"final_layer.linear.{kind}"]
        for i in range(2):
            ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
            for name, part in zip("qkv", given[f"{ours}.attn.qkv.{kind}"].chunk(3)):
                state[f"{theirs}.attn1.to_{name}.{kind}"] = part
            state[f"{theirs}.attn1.to_out.0.{kind}"] = given[f"{ours}.attn.proj.{kind}"]
            state[f"{theirs}.ff.net.0.proj.{kind}"] = given[f"{ours}.mlp.fc1.{kind}"]
            state[f"{theirs}.ff.net.2.{kind}"] = given[f"{ours}.mlp.fc2.{kind}"]
            state[f"{theirs}.norm1.linear.{kind}"] = given[f"{ours}.adaLN_modulation.1.{kind}"]
            for j in (1, 2):
                state[f"{theirs}.norm1.emb.timestep_embedder.linear_{j}.{kind}"] = given[f"t_embedder.mlp.{2 * j - 2}.{kind}"]
            state[f"{theirs}.norm1.emb.class_embedder.embedding_table.weight"] = given["y_embedder.embedding_table.weight"]
    model.load_state_dict(state)
    return model


def models() -> None:
    original = OriginalDiT().eval()
    for name, parameter in original.named_parameters():
        if name != "pos_embed":  # far from zero: the adaLN-Zero initialisation would hide errors
            parameter.data = randn(*parameter.shape) * (parameter[0].numel() if parameter.ndim > 1 else 16) ** -0.5
    torch.save(original.state_dict(), HERE / "DiT-tiny.pt")
    diffusers = diffusers_of(original).eval()
    folder = HERE / "pipeline" / "transformer"
    diffusers.save_pretrained(folder, safe_serialization=False)
    diffusers.half().save_pretrained(folder, safe_serialization=False, variant="fp16", max_shard_size="20KB")
    # Weights of half precision, computed in float32; positions, which are no weights, stay exact.
    half = DiTTransformer2DModel.from_pretrained(folder, variant="fp16", use_safetensors=False, torch_dtype=torch.float32)
    index = {"_class_name": "DiTPipeline", "transformer": ["diffusers", "DiTTransformer2DModel"]}
    (folder.parent / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    given = {"sample": randn(3, 4, 8, 8), "timesteps": torch.tensor([999.0, 412.5, 3.0]), "labels": torch.tensor([0, 4, 5])}
    with torch.no_grad():
        outputs = {
            "original": original(*given.values()),
            "diffusers": diffusers_of(original).eval()(*given.values()).sample,
            "float16": half.eval()(*given.values()).sample,
        }
    gap = (outputs["original"] - outputs["diffusers"]).abs().max() / outputs["original"].abs().max()
    print(f"diffusers' model is {gap:.3f} of the largest output away from the original")
    save_file({**given, **outputs}, HERE / "DiT-tiny.golden.safetensors")


if __name__ == "__main__":
    kinds()
    training()
    models()
