"""Writes the reference inputs and outputs that the tests compare with, using diffusers in fp32.

    python goldens.py

In tests/goldens/dit:
  embedded.safetensors   the embedded model: one batch with its outputs, and for the first image every
                         fourth token after patch embedding ("hidden.0") and after block i ("hidden.i")
  ddim.safetensors       ten guided DDIM steps of the embedded model with diffusers' DDIMScheduler
  tiny-*/                small models with random weights in unusual shapes, as diffusers folders, each
                         with golden.safetensors (all tokens)

The first two depend on the weights: run this after every export.
"""

import argparse
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from safetensors.torch import save_file

from export import model_index, scheduler_config, write_json

ROOT = Path(__file__).parent.parent

# Random adaLN weights are far from zero here: zero-initialised ones would hide errors.
TINY = {
    "tiny-a": {
        "dtype": torch.float32,
        "config": dict(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=7,
        ),
    },
    "tiny-b": {
        "dtype": torch.float16,
        "config": dict(
            num_attention_heads=3,
            attention_head_dim=8,
            in_channels=2,
            num_layers=3,
            sample_size=6,
            patch_size=1,
            num_embeds_ada_norm=5,
            attention_bias=False,
            norm_eps=1e-6,
        ),
    },
    "tiny-c": {
        "dtype": torch.float32,
        "config": dict(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=3,
            num_layers=2,
            sample_size=16,
            patch_size=4,
            num_embeds_ada_norm=5,
            attention_bias=False,
            activation_fn="gelu",
            norm_elementwise_affine=True,
            norm_eps=1e-6,
        ),
    },
}


def save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


@torch.no_grad()
def forward_golden(model: DiTTransformer2DModel, timesteps: list[int], labels: list[int], token_step: int) -> dict:
    """Runs one batch and records the token sequences of its first image along the way."""
    generator = torch.Generator().manual_seed(20)
    size, channels = model.config.sample_size, model.config.in_channels
    tensors = {
        "sample": torch.randn(len(timesteps), channels, size, size, generator=generator),
        "timesteps": torch.tensor(timesteps),
        "labels": torch.tensor(labels),
    }

    def record(name):
        def hook(_module, _inputs, output):
            tensors[name] = output[0, ::token_step].clone()

        return hook

    stages = [model.pos_embed, *model.transformer_blocks]
    hooks = [stage.register_forward_hook(record(f"hidden.{i}")) for i, stage in enumerate(stages)]
    tensors["output"] = model(tensors["sample"], tensors["timesteps"], tensors["labels"]).sample
    for hook in hooks:
        hook.remove()
    return tensors


@torch.no_grad()
def ddim_golden(model: DiTTransformer2DModel, scheduler: DDIMScheduler, labels: list[int], steps: int, guidance: float) -> dict:
    generator = torch.Generator().manual_seed(21)
    size, channels = model.config.sample_size, model.config.in_channels
    latents = torch.randn(len(labels), channels, size, size, generator=generator)
    rows = torch.tensor(labels + [model.config.num_embeds_ada_norm] * len(labels))
    scheduler.set_timesteps(steps)
    image = latents
    for t in scheduler.timesteps:
        eps = model(torch.cat([image, image]), t.expand(len(rows)), rows).sample
        with_class, without = eps.chunk(2)
        eps = without + guidance * (with_class - without)
        image = scheduler.step(eps, t, image, eta=0.0).prev_sample
    return {
        "latents": latents,
        "labels": torch.tensor(labels),
        "timesteps": scheduler.timesteps,
        "guidance": torch.tensor([guidance]),
        "image": image,
    }


def tiny_model(folder: Path, config: dict, dtype: torch.dtype) -> DiTTransformer2DModel:
    """A random model, saved as a diffusers folder and loaded from it in fp32."""
    generator = torch.Generator().manual_seed(22)
    model = DiTTransformer2DModel(**config)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
        parameter.data.normal_(std=fan_in**-0.5, generator=generator)
    model.to(dtype).save_pretrained(folder / "transformer")
    write_json(folder / "scheduler/scheduler_config.json", scheduler_config())
    write_json(folder / "model_index.json", model_index([f"class {i}" for i in range(config["num_embeds_ada_norm"])]))
    return DiTTransformer2DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=torch.float32).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models/avatars-dit")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/goldens/dit")
    args = parser.parse_args()

    model = DiTTransformer2DModel.from_pretrained(args.model, subfolder="transformer", torch_dtype=torch.float32).eval()
    scheduler = DDIMScheduler.from_pretrained(args.model, subfolder="scheduler")
    null = model.config.num_embeds_ada_norm
    save(args.out / "embedded.safetensors", forward_golden(model, [999, 500, 37, 0], [0, 3, null - 1, null], token_step=4))
    save(args.out / "ddim.safetensors", ddim_golden(model, scheduler, [1, 8], steps=10, guidance=2.0))
    for name, tiny in TINY.items():
        folder = args.out / name
        model = tiny_model(folder, tiny["config"], tiny["dtype"])
        null = tiny["config"]["num_embeds_ada_norm"]
        save(folder / "golden.safetensors", forward_golden(model, [999, 301, 0], [0, 3, null], token_step=1))


if __name__ == "__main__":
    main()
