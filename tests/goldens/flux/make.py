"""Writes tiny-dev and tiny-schnell: FLUX transformers with random weights, and what diffusers makes of them.

    python make.py

Needs torch and diffusers.
"""

from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import save_file

CONFIGS = {
    "tiny-dev": dict(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=6,
        num_attention_heads=2,
        joint_attention_dim=10,
        pooled_projection_dim=6,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 2),
    ),
    "tiny-schnell": dict(
        patch_size=2,
        in_channels=8,
        out_channels=3,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=12,
        num_attention_heads=1,
        joint_attention_dim=5,
        pooled_projection_dim=4,
        guidance_embeds=False,
        axes_dims_rope=(2, 4, 6),
    ),
}
ROWS, COLUMNS, TEXT_TOKENS = 3, 5, 4

for seed, (name, config) in enumerate(CONFIGS.items()):
    folder = Path(__file__).parent / name
    generator = torch.Generator().manual_seed(31 + seed)
    model = FluxTransformer2DModel(**config)
    # Norms' scales are ones as initialised, which would hide that they are used.
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data.normal_(std=fan_in**-0.5, generator=generator)
    model.save_pretrained(folder / "transformer")

    grid = torch.stack(torch.meshgrid(torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij"), dim=-1)
    image_ids = torch.cat([torch.zeros(ROWS * COLUMNS, 1), grid.reshape(-1, 2)], dim=1)
    tensors = {
        "sample": torch.randn(2, ROWS * COLUMNS, config["in_channels"], generator=generator),
        "encoder_hidden_states": torch.randn(2, TEXT_TOKENS, config["joint_attention_dim"], generator=generator),
        "pooled_projection": torch.randn(2, config["pooled_projection_dim"], generator=generator),
        "timestep": torch.tensor([1.0, 0.137]),
    }
    if config["guidance_embeds"]:
        tensors["guidance"] = torch.tensor([3.5, 1.0])
    with torch.no_grad():
        tensors["output"] = model(
            hidden_states=tensors["sample"],
            encoder_hidden_states=tensors["encoder_hidden_states"],
            pooled_projections=tensors["pooled_projection"],
            timestep=tensors["timestep"],
            guidance=tensors.get("guidance"),
            img_ids=image_ids,
            txt_ids=torch.zeros(TEXT_TOKENS, 3),
        ).sample
    save_file(tensors, folder / "golden.safetensors")
