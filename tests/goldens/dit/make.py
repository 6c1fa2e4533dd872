"""Writes tiny-c: a model with random weights and the options that no other golden model has.

    python make.py

Exact GELU, affine norms, no attention bias, patches of 4. Needs torch and diffusers.
"""

from pathlib import Path

import torch
from diffusers import DiTTransformer2DModel
from safetensors.torch import save_file

folder = Path(__file__).parent / "tiny-c"
generator = torch.Generator().manual_seed(23)
model = DiTTransformer2DModel(
    num_attention_heads=2,
    attention_head_dim=16,
    in_channels=3,
    out_channels=3,
    num_layers=2,
    sample_size=16,
    patch_size=4,
    num_embeds_ada_norm=5,
    attention_bias=False,
    activation_fn="gelu",
    norm_elementwise_affine=True,
    norm_eps=1e-6,
)
# Random adaLN weights are far from zero here: zero-initialised ones would hide errors.
for parameter in model.parameters():
    fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
    parameter.data.normal_(std=fan_in**-0.5, generator=generator)
model.save_pretrained(folder / "transformer")

tensors = {
    "sample": torch.randn(3, 3, 16, 16, generator=generator),
    "timesteps": torch.tensor([999, 500, 1]),
    "labels": torch.tensor([0, 4, 5]),
}
with torch.no_grad():
    tensors["output"] = model(tensors["sample"], tensors["timesteps"], tensors["labels"]).sample
save_file(tensors, folder / "golden.safetensors")
