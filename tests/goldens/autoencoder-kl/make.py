"""Writes small autoencoders with random weights and what diffusers decodes with them.

    python make.py

Each folder is a `vae` of diffusers with a golden.safetensors beside it; encoders are left out, to be small, but for
that of sd. Needs torch and diffusers.

  sd         like Stable Diffusion's with fewer blocks; half-precision weights, encoder included, batch of two
  tiled      larger latents decoded by sd in overlapping tiles
  flux       16 channels, no quant convs, shift factor; no attention in the middle; not square
  options    mean and deviation by channel, Mish, one group of blocks, 4 channels out
  rgb        floats and the bytes that diffusers makes of them, those included that a rounding less would change
  old-names  attention weights as early diffusers named them, its file read by diffusers itself
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from safetensors.torch import load_file, save_file

folder = Path(__file__).parent
generator = torch.Generator().manual_seed(5)
randn = lambda *shape: torch.randn(*shape, generator=generator)


def autoencoder(**config):
    blocks = len(config["block_out_channels"])
    model = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * blocks, up_block_types=["UpDecoderBlock2D"] * blocks, **config
    ).eval()
    for name, parameter in model.named_parameters():
        # Scales of norms around one, biases far from zero: zero-initialised ones would hide errors.
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
        parameter.data.normal_(std=fan_in**-0.5, generator=generator)
        if parameter.ndim == 1 and name.endswith("weight"):
            parameter.data += 1
    return model


def rewrite(name, change):
    file = folder / name / "diffusion_pytorch_model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without_encoder(tensors):
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(("encoder.", "quant_conv."))}


def save_golden(name, latent, image):
    (folder / name).mkdir(exist_ok=True)
    save_file({"latent": latent, "image": image.contiguous()}, folder / name / "golden.safetensors")


with torch.no_grad():
    sd = autoencoder(
        block_out_channels=[8, 16], layers_per_block=1, norm_num_groups=4, sample_size=16, scaling_factor=0.18215
    )
    sd = sd.half().float()  # what the file holds is what is computed with
    latent = randn(2, 4, 8, 8)
    save_golden("sd", latent, sd.decode(1 / sd.config.scaling_factor * latent).sample)
    wide = randn(1, 4, 13, 20)
    sd.enable_tiling()
    save_golden("tiled", wide, sd.decode(1 / sd.config.scaling_factor * wide).sample)
    sd.half().save_pretrained(folder / "sd")

    flux = autoencoder(
        block_out_channels=[4, 8, 8],
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=16,
        sample_size=64,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    latent = randn(1, 16, 5, 7)
    save_golden("flux", latent, flux.decode(latent / flux.config.scaling_factor + flux.config.shift_factor).sample)
    flux.save_pretrained(folder / "flux")
    rewrite("flux", without_encoder)

    x = torch.rand(1_000_000, generator=generator) * 2.4 - 1.2
    near_tie = ((127.5 * (x.double() + 1)) % 1 - 0.5).abs() < 4e-6
    x = torch.cat([x[near_tie], x[:200], torch.tensor([-1.0, 0.0, 1.0, 1e9, -1e9])])
    x = x[: len(x) // 3 * 3].view(1, 3, 1, -1)
    (array,) = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    (image,) = DiffusionPipeline.numpy_to_pil(array)
    (folder / "rgb").mkdir(exist_ok=True)
    bytes_ = torch.from_numpy(np.array(image)).float()
    save_file({"x": x[0].contiguous(), "bytes": bytes_}, folder / "rgb" / "golden.safetensors")

    mean, std = [0.3, -1.2, 0.05, 2.0], [5.5, 0.7, 3.1, 1.4]
    options = autoencoder(
        block_out_channels=[8],
        out_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        act_fn="mish",
        scaling_factor=0.5,
        latents_mean=mean,
        latents_std=std,
    )
    latent = randn(1, 4, 4, 6)
    column = lambda values: torch.tensor(values).view(1, -1, 1, 1)
    scaled = latent * column(std) / options.config.scaling_factor + column(mean)  # as diffusers' SDXL pipeline
    save_golden("options", latent, options.decode(scaled).sample)
    options.save_pretrained(folder / "options")
    rewrite("options", without_encoder)

    old = autoencoder(block_out_channels=[8], layers_per_block=1, norm_num_groups=2, latent_channels=3)
    old.save_pretrained(folder / "old-names")

    def old_names(tensors):
        parts = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for name in [name for name in tensors if ".attentions.0.to_" in name]:
            part = next(part for part in parts if f".{part}." in name)
            tensors[name.replace(part, parts[part])] = tensors.pop(name)
        return tensors

    rewrite("old-names", old_names)
    read = AutoencoderKL.from_pretrained(folder / "old-names")
    latent = randn(1, 3, 6, 4)
    image = read.decode(1 / read.config.scaling_factor * latent).sample
    assert torch.equal(image, old.decode(1 / old.config.scaling_factor * latent).sample)
    save_golden("old-names", latent, image)
    rewrite("old-names", without_encoder)
