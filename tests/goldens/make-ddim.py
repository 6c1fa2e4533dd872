"""Writes ddim.json: timesteps and trajectories of diffusers' DDIMScheduler, for tests/samplers/ddim.test.ts.

Run: python tests/goldens/make-ddim.py   (PyTorch and diffusers; written with 2.15 and 0.42)

The fake model output is a smooth function of latent x, step index i and element index k that any language can repeat:
m = 0.5·sin(3·x + i) + 0.3·cos(k). The initial latent is x_k = 1.5·sin(k + 1).
"""

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler

STEPS = [1, 7, 10, 50, 999, 1000]
BASE = {"clip_sample": False}
TRAJECTORIES = [
    BASE | {"timestep_spacing": spacing, "prediction_type": prediction}
    for spacing in ("leading", "trailing", "linspace")
    for prediction in ("epsilon", "v_prediction", "sample")
] + [
    {},  # all defaults: clips to ±1
    {"clip_sample": True, "clip_sample_range": 0.5, "prediction_type": "v_prediction"},
    BASE | {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "set_alpha_to_one": False,
            "steps_offset": 1},
    BASE | {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    BASE | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    BASE | {"num_train_timesteps": 20, "trained_betas": [0.01 + 0.02 * i for i in range(20)]},
]


def trajectory(config, steps):
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    k = torch.arange(6, dtype=torch.float32)
    x = 1.5 * torch.sin(k + 1)
    latents = []
    for i, t in enumerate(scheduler.timesteps):
        m = 0.5 * torch.sin(3 * x + i) + 0.3 * torch.cos(k)
        x = scheduler.step(m, t, x, eta=0.0).prev_sample
        latents.append([round(v, 7) for v in x.double().tolist()])
    return {"config": config, "steps": steps, "latents": latents}


def timesteps(spacing, steps, offset):
    scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(steps)
    found = scheduler.timesteps.tolist()
    return {"spacing": spacing, "steps": steps, "offset": offset, "timesteps": found}


def main():
    golden = {
        "timesteps": [
            timesteps(spacing, steps, offset)
            for spacing in ("leading", "trailing", "linspace")
            for steps in STEPS
            for offset in (0, 1)
        ],
        "trajectories": [trajectory(config, steps) for config in TRAJECTORIES for steps in (4, 7)],
    }
    Path(__file__).with_name("ddim.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
