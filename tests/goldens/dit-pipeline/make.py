"""Writes a whole class-to-image pipeline with random weights, and what diffusers draws with it.

    python make.py

A latent DiT with learned variance, an autoencoder and a scheduler, as a folder in diffusers' layout, and golden.safetensors:
images of two classes from the seeds 5 and 6, with DDIM and with DPM-Solver++(2M). Needs torch and diffusers.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
)
from safetensors.torch import save_file

FOLDER = Path(__file__).parent
SEEDS, CLASSES, STEPS, GUIDANCE = [5, 6], [207, 3], 8, 4.0


def randomise(model: torch.nn.Module, seed: int, gain: float) -> None:
    """Normal weights of a variance that keeps activations in range; zero-initialised parts would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
        parameter.data.normal_(std=gain * fan_in**-0.5, generator=generator)
        if "norm" in name and name.endswith("weight") and parameter.ndim == 1:
            parameter.data.add_(1)
    model.half().float().eval()


transformer = DiTTransformer2DModel(
    num_attention_heads=2,
    attention_head_dim=8,
    in_channels=4,
    out_channels=8,
    num_layers=2,
    sample_size=8,
    patch_size=2,
    num_embeds_ada_norm=1000,  # DiTPipeline's null class is number 1000
)
vae = AutoencoderKL(
    down_block_types=["DownEncoderBlock2D"] * 2,
    up_block_types=["UpDecoderBlock2D"] * 2,
    block_out_channels=[8, 16],
    norm_num_groups=4,
    latent_channels=4,
    sample_size=16,
    scaling_factor=0.18215,
)
randomise(transformer, 31, 1.0)
randomise(vae, 32, 0.7)
scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
names = {i: f"class {i}" for i in range(1000)}
DiTPipeline(transformer.half(), vae.half(), scheduler, names).save_pretrained(FOLDER)

pipeline = DiTPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32)
pipeline.set_progress_bar_config(disable=True)
images = {}
for name, sampler in {
    "ddim": pipeline.scheduler,
    "dpm-solver++": DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config),
}.items():
    pipeline.scheduler = sampler
    drawn = pipeline(
        CLASSES,
        guidance_scale=GUIDANCE,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        num_inference_steps=STEPS,
        output_type="np",
    ).images
    images[name] = torch.from_numpy((drawn * 255).round().astype("uint8")).contiguous()
    print(name, drawn.shape, "mean", drawn.mean(), "spread", drawn.std(), "clipped", ((drawn == 0) | (drawn == 1)).mean())
save_file(images, FOLDER / "golden.safetensors")
