"""Writes what diffusers draws with "sdxl" and "refiner" of this folder sharing the steps, the former the noisier ones.

    OMP_NUM_THREADS=1 python make-ensemble.py

ensemble.safetensors, by the part that the first has done: "latents_<part>", what it hands on, float32 [1, 4, h, w], and
"images_<part>", what the second makes of it, uint8 [images, height, width, 3]. The request and the seed are below.
Needs torch, diffusers and transformers, and the folders that make.py writes.
"""

from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
SEED = 11
REQUEST = {"prompt": ["a red fox"], "num_inference_steps": 9}
SIZE = {"height": 64, "width": 64}
PARTS = [0.6, 0.85]


def opened(kind, name: str):
    pipeline = kind.from_pretrained(HERE / name, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


base = opened(diffusers.StableDiffusionXLPipeline, "sdxl")
refiner = opened(diffusers.StableDiffusionXLImg2ImgPipeline, "refiner")
golden = {}
for part in PARTS:
    latents = base(
        **REQUEST, **SIZE, denoising_end=part, output_type="latent", generator=torch.Generator().manual_seed(SEED)
    ).images
    images = refiner(
        **REQUEST, image=latents, denoising_start=part, output_type="pt", generator=torch.Generator().manual_seed(SEED)
    ).images
    golden[f"latents_{part}"] = latents.contiguous()
    golden[f"images_{part}"] = (images.permute(0, 2, 3, 1) * 255).round().byte().contiguous()
save_file(golden, HERE / "ensemble.safetensors")
