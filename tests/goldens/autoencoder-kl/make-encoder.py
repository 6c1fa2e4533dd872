"""Writes what diffusers encodes with sd (make.py), and a small autoencoder's encoder with what it encodes.

    python make-encoder.py

Needs torch and diffusers.

  encoder  16 channels, no quant conv, no attention in the middle, Mish; three levels; not square; decoder left out
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

folder = Path(__file__).parent
generator = torch.Generator().manual_seed(15)
randn = lambda *shape: torch.randn(*shape, generator=generator)


def save_encoded(name, model, image):
    with torch.no_grad():
        moments = model.encode(image).latent_dist.parameters  # logvar as it is, not clamped
    mean, logvar = moments.chunk(2, dim=1)
    tensors = {"image": image, "mean": mean.contiguous(), "logvar": logvar.contiguous()}
    save_file(tensors, folder / name / "encoded.safetensors")


save_encoded("sd", AutoencoderKL.from_pretrained(folder / "sd").float(), randn(2, 3, 12, 20))

model = AutoencoderKL(
    down_block_types=["DownEncoderBlock2D"] * 3,
    up_block_types=["UpDecoderBlock2D"] * 3,
    block_out_channels=[4, 8, 8],
    layers_per_block=2,
    norm_num_groups=2,
    latent_channels=16,
    act_fn="mish",
    use_quant_conv=False,
    use_post_quant_conv=False,
    mid_block_add_attention=False,
).eval()
for name, parameter in model.named_parameters():
    fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
    parameter.data.normal_(std=fan_in**-0.5, generator=generator)
    if parameter.ndim == 1 and name.endswith("weight"):
        parameter.data += 1
model.half().save_pretrained(folder / "encoder")
model.float()
file = folder / "encoder" / "diffusion_pytorch_model.safetensors"
save_file({k: v for k, v in load_file(file).items() if k.startswith("encoder.")}, file, metadata={"format": "pt"})
save_encoded("encoder", model, randn(1, 3, 20, 28))
