"""Writes tiny U-Nets with random weights in half precision, and what diffusers makes of them in single.

    OMP_NUM_THREADS=1 python make.py

Needs torch and diffusers.

  sd1       like Stable Diffusion 1: as many heads at every level, convolutions around the transformers; odd sides
  sd2       like 2: heads by level, linear layers around the transformers
  sdxl      like SDXL: a level without attention, deeper transformers, pooled text and sizes; odd sides
  refiner   like SDXL's refiner: five numbers beside the pooled text
  ssd       like SSD-1B: depths by layer, other ones on the way up, nothing in the middle but a residual block
  lcm       like Stable Diffusion 1 distilled to take the guidance scale; sines first, another shift, layers by level
  inpaint   nine channels in; no middle at all
"""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

X, D = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


def blocks(*kinds):
    return dict(down_block_types=[k[0] for k in kinds], up_block_types=[k[1] for k in reversed(kinds)])


COMMON = dict(sample_size=8, norm_num_groups=2, layers_per_block=1)
TEXT_TIME = dict(addition_embed_type="text_time", addition_time_embed_dim=4)
CONFIGS = {
    "sd1": dict(
        **blocks(X, X, D), block_out_channels=[4, 8, 8], attention_head_dim=2, cross_attention_dim=6
    ),
    "sd2": dict(
        **blocks(X, D), block_out_channels=[4, 8], attention_head_dim=[1, 4], cross_attention_dim=5,
        use_linear_projection=True, upcast_attention=True, norm_eps=1e-3,
    ),
    "sdxl": dict(
        **blocks(D, X, X), block_out_channels=[4, 8, 12], attention_head_dim=[1, 2, 3],
        cross_attention_dim=10, use_linear_projection=True, transformer_layers_per_block=[1, 1, 2],
        projection_class_embeddings_input_dim=6 + 6 * 4, **TEXT_TIME,
    ),
    "refiner": dict(
        **blocks(D, X, D), block_out_channels=[4, 8, 8], attention_head_dim=[1, 2, 2], cross_attention_dim=6,
        use_linear_projection=True, transformer_layers_per_block=2,
        projection_class_embeddings_input_dim=6 + 5 * 4, **TEXT_TIME,
    ),
    "ssd": dict(
        **blocks(D, X, X), block_out_channels=[4, 4, 8], layers_per_block=2, attention_head_dim=[1, 2, 2],
        cross_attention_dim=7, use_linear_projection=True, mid_block_type="UNetMidBlock2D",
        transformer_layers_per_block=[[0, 0], [1, 2], [2, 1]],
        reverse_transformer_layers_per_block=[[1, 2, 3], [2, 1, 1], 0],
        projection_class_embeddings_input_dim=6 + 6 * 4, **TEXT_TIME,
    ),
    "lcm": dict(
        **blocks(X, X), block_out_channels=[4, 8], layers_per_block=[1, 2], attention_head_dim=2, cross_attention_dim=6,
        time_cond_proj_dim=6, flip_sin_to_cos=False, freq_shift=1,
    ),
    "inpaint": dict(
        **blocks(X, D), block_out_channels=[4, 8], attention_head_dim=2, cross_attention_dim=6, in_channels=9,
        mid_block_type=None,
    ),
}  # fmt: skip
SIZES = {"sd1": (10, 13), "sdxl": (9, 7), "inpaint": (5, 6)}
TEXT_TOKENS = 5

for seed, (name, config) in enumerate(CONFIGS.items()):
    folder = Path(__file__).parent / name
    generator = torch.Generator().manual_seed(71 + seed)
    randn = lambda *shape: torch.randn(*shape, generator=generator)
    model = UNet2DConditionModel(**(COMMON | config)).eval()
    for parameter, tensor in model.named_parameters():
        # Norms' scales are ones and biases zeros as initialised, which would hide that they are used.
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 4
        tensor.data.normal_(std=fan_in**-0.5, generator=generator)
        if "norm" in parameter and parameter.endswith("weight"):
            tensor.data += 1
    model.half().save_pretrained(folder / "unet")
    model.float()

    size = SIZES.get(name, (8, 8))
    channels = config.get("in_channels", 4)
    tensors = {
        "sample": randn(2, channels, *size),
        "timestep": torch.tensor([981.0, 33.7]),
        "encoder_hidden_states": randn(2, TEXT_TOKENS, config["cross_attention_dim"]),
    }
    added = None
    if "addition_embed_type" in config:
        ids = [[1024, 768, 0, 16, 1024, 1000], [9, 512, 3, 0, 64, 80]]
        count = 5 if name == "refiner" else 6
        added = dict(text_embeds=randn(2, 6), time_ids=torch.tensor(ids)[:, :count].float())
        tensors |= added
    if "time_cond_proj_dim" in config:
        tensors["timestep_cond"] = randn(2, config["time_cond_proj_dim"])
    with torch.no_grad():
        tensors["output"] = model(
            tensors["sample"],
            tensors["timestep"],
            tensors["encoder_hidden_states"],
            timestep_cond=tensors.get("timestep_cond"),
            added_cond_kwargs=added,
        ).sample
    save_file(tensors, folder / "golden.safetensors")
    print(name, sum(p.numel() for p in model.parameters()), tensors["output"].abs().max())
