"""The small Stable Diffusion for training: diffusers' U-Net on the latents of the text-to-image model's autoencoder.

Text comes from that model's CLIP encoder, trained and frozen; the U-Net predicts v (Salimans & Ho 2022,
https://arxiv.org/abs/2202.00512) on a schedule whose last step is pure noise (Lin et al. 2023, https://arxiv.org/abs/2305.08891).
"""

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from train_autoencoder import FastGroupNorm

TOKENS = 48  # of CLIP's sequence: what the descriptions need

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
}


def unet_config(channels: list[int], layers: int, heads: list[int], latent_channels: int, text_width: int) -> dict:
    """SDXL's layout in small: no attention at the highest resolution, one transformer block wherever there is some."""
    down = ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * (len(channels) - 1)
    up = ["CrossAttnUpBlock2D"] * (len(channels) - 1) + ["UpBlock2D"]
    return {
        "sample_size": 16,
        "in_channels": latent_channels,
        "out_channels": latent_channels,
        "block_out_channels": channels,
        "down_block_types": down,
        "up_block_types": up,
        "layers_per_block": layers,
        "attention_head_dim": heads,
        "cross_attention_dim": text_width,
        "use_linear_projection": True,
        "norm_num_groups": 8,
    }


def build(config: dict) -> UNet2DConditionModel:
    model = UNet2DConditionModel(**config).to(memory_format=torch.channels_last)
    for name, module in model.named_modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = FastGroupNorm
        # Every residual branch starts as nothing.
        if name.endswith((".conv2", ".proj_out", ".to_out.0", ".ff.net.2")) or name == "conv_out":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    model.set_attn_processor(AttnProcessor())  # two products and a softmax: PyTorch's fused one is slow backwards on a CPU
    return model


def signal_and_noise() -> tuple[torch.Tensor, torch.Tensor]:
    """sqrt(alpha bar) and sqrt(1 - alpha bar) of the 1000 timesteps."""
    alphas = DDIMScheduler.from_config(SCHEDULER).alphas_cumprod
    return alphas.sqrt(), (1 - alphas).sqrt()
