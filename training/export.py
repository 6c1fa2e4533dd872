"""Writes a training checkpoint as a diffusers folder and proves that diffusers computes the same.

    python export.py --checkpoint DIR/checkpoint.pt --data DIR --out ../models/avatars-dit

The EMA weights go out in fp16 under the tensor names of `DiTTransformer2DModel`; the one shared
timestep/label embedder is copied into every block, as diffusers' conversion of DiT does. The folder is
written only if diffusers' model, loaded from it, reproduces the training model.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import diffusers
import torch
from diffusers import DiTTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn

from model import BETA_END, BETA_START, TRAIN_STEPS, DiT, DiTConfig, alphas_cumprod


def load_ema(path: Path) -> DiT:
    """The EMA model of a checkpoint, rounded to fp16 (the precision of the exported file)."""
    saved = torch.load(path, weights_only=True)
    model = DiT(DiTConfig(**saved["config"])).eval().requires_grad_(False)
    model.load_state_dict({k: v.half().float() for k, v in saved["ema"].items()})
    print(f"{path}: step {saved['step']}, {saved['samples']} images seen, {saved['minutes']:.1f} minutes")
    return model


def layer_names(model: DiT) -> dict[str, nn.Module]:
    """Diffusers' name of every layer; the shared embedders appear once per block."""
    layers = {
        "pos_embed.proj": model.patch_embed,
        "proj_out_1": model.head_ada,
        "proj_out_2": model.head,
    }
    for i, block in enumerate(model.blocks):
        prefix = f"transformer_blocks.{i}"
        layers |= {
            f"{prefix}.norm1.emb.timestep_embedder.linear_1": model.time_in,
            f"{prefix}.norm1.emb.timestep_embedder.linear_2": model.time_out,
            f"{prefix}.norm1.emb.class_embedder.embedding_table": model.labels,
            f"{prefix}.norm1.linear": block.ada,
            f"{prefix}.attn1.to_q": block.to_q,
            f"{prefix}.attn1.to_k": block.to_k,
            f"{prefix}.attn1.to_v": block.to_v,
            f"{prefix}.attn1.to_out.0": block.to_out,
            f"{prefix}.ff.net.0.proj": block.fc1,
            f"{prefix}.ff.net.2": block.fc2,
        }
    return layers


def diffusers_tensors(model: DiT) -> dict[str, torch.Tensor]:
    config = model.config
    tensors = {
        f"{name}.{part}": tensor.detach().half().clone()
        for name, layer in layer_names(model).items()
        for part, tensor in layer.named_parameters()
    }
    kernel = (config.width, config.channels, config.patch, config.patch)
    tensors["pos_embed.proj.weight"] = tensors["pos_embed.proj.weight"].reshape(kernel)
    return tensors


def load_exported(folder: Path) -> DiT:
    """The training model with the weights of an exported folder, in fp32."""
    shape = json.loads((folder / "transformer/config.json").read_text())
    config = DiTConfig(
        width=shape["num_attention_heads"] * shape["attention_head_dim"],
        heads=shape["num_attention_heads"],
        depth=shape["num_layers"],
        patch=shape["patch_size"],
        size=shape["sample_size"],
        channels=shape["in_channels"],
        classes=shape["num_embeds_ada_norm"],
    )
    model = DiT(config).eval().requires_grad_(False)
    tensors = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
    for name, layer in layer_names(model).items():
        for part, parameter in layer.named_parameters():
            parameter.copy_(tensors[f"{name}.{part}"].reshape(parameter.shape))
    return model


def transformer_config(config: DiTConfig) -> dict:
    return {
        "_class_name": "DiTTransformer2DModel",
        "_diffusers_version": diffusers.__version__,
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": config.width // config.heads,
        "dropout": 0.0,
        "in_channels": config.channels,
        "norm_elementwise_affine": False,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": config.heads,
        "num_embeds_ada_norm": config.classes,
        "num_layers": config.depth,
        "out_channels": config.channels,
        "patch_size": config.patch,
        "sample_size": config.size,
        "upcast_attention": False,
    }


def scheduler_config() -> dict:
    """DDIM as in diffusers' DiT pipeline, written with the offset that `sample_ddim` uses."""
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": diffusers.__version__,
        "beta_end": BETA_END,
        "beta_schedule": "linear",
        "beta_start": BETA_START,
        "clip_sample": False,
        "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995,
        "num_train_timesteps": TRAIN_STEPS,
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "thresholding": False,
        "timestep_spacing": "leading",
        "trained_betas": None,
    }


def model_index(classes: list[str]) -> dict:
    return {
        "_class_name": "DiTPipeline",
        "_diffusers_version": diffusers.__version__,
        "id2label": {str(i): name for i, name in enumerate(classes)},
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": [None, None],
    }


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


@torch.no_grad()
def check(model: DiT, folder: Path) -> None:
    """Loads the folder with diffusers and compares outputs and noise schedule with our own."""
    theirs, loading = DiTTransformer2DModel.from_pretrained(
        folder, subfolder="transformer", torch_dtype=torch.float32, output_loading_info=True
    )
    if loading["missing_keys"] or loading["unexpected_keys"]:
        raise SystemExit(f"tensor names do not match: {loading}")
    theirs.eval()
    generator = torch.Generator().manual_seed(0)
    size, channels = model.config.size, model.config.channels
    x = torch.randn(6, channels, size, size, generator=generator)
    t = torch.tensor([999, 750, 500, 250, 37, 0])
    y = torch.tensor([0, 2, 4, 6, 8, model.config.classes])
    ours, reference = model(x, t, y), theirs(x, t, y).sample
    error = (ours - reference).abs().max().item()
    print(f"largest difference to diffusers: {error:.2e} (outputs up to {reference.abs().max():.2f})")
    if error > 1e-4:
        raise SystemExit("the exported model does not compute what the training model computes")
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    torch.testing.assert_close(scheduler.alphas_cumprod, alphas_cumprod())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render.mjs (class names)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "models/avatars-dit")
    args = parser.parse_args()

    model = load_ema(args.checkpoint)
    classes = json.loads((args.data / "index.json").read_text())["classes"]
    with tempfile.TemporaryDirectory(dir=args.checkpoint.parent) as temporary:
        folder = Path(temporary)
        write_json(folder / "model_index.json", model_index(classes))
        write_json(folder / "transformer/config.json", transformer_config(model.config))
        write_json(folder / "scheduler/scheduler_config.json", scheduler_config())
        weights = folder / "transformer/diffusion_pytorch_model.safetensors"
        save_file(diffusers_tensors(model), weights, metadata={"format": "pt"})
        check(model, folder)
        for source in sorted(path for path in folder.rglob("*") if path.is_file()):
            target = args.out / source.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + ".partial")
            shutil.copyfile(source, partial)
            partial.replace(target)
            print(f"{target.relative_to(args.out)}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
