"""Writes dpm-solver.json: timesteps and trajectories of diffusers' DPMSolverMultistepScheduler, for
tests/samplers/dpm-solver.test.ts.

Run: python tests/goldens/make-dpm-solver.py   (PyTorch and diffusers; written with 2.15 and 0.42)

The fake model output is that of make-ddim.py: m = 0.5·sin(3·x + i) + 0.3·cos(k) for latent x, step index i and element
index k; the initial latent is x_k = 1.5·sin(k + 1). A config goes through `from_config`, so that one of another class
becomes what diffusers makes of it.
"""

import json
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler

SPACINGS = ("leading", "trailing", "linspace")
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LU = {"use_lu_lambdas": True}
CONFIGS = [
    {"timestep_spacing": spacing, "prediction_type": prediction}
    for spacing in SPACINGS
    for prediction in ("epsilon", "v_prediction", "sample")
] + [
    {"timestep_spacing": spacing, "solver_order": 1} for spacing in SPACINGS
] + [
    {"solver_type": "heun"},
    SIGMA_MIN,
    SIGMA_MIN | {"solver_type": "heun"},
    SIGMA_MIN | {"solver_order": 1},
    SIGMA_MIN | {"euler_at_final": True},
    SIGMA_MIN | {"lower_order_final": False},
    {"use_karras_sigmas": True},
    SIGMA_MIN | {"use_karras_sigmas": True},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "leading",
     "steps_offset": 1},
    {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    {"num_train_timesteps": 20, "trained_betas": [0.01 + 0.02 * i for i in range(20)]},
    {"_class_name": "DDIMScheduler", "clip_sample": True, "set_alpha_to_one": False, "steps_offset": 1,
     "timestep_spacing": "leading"},
    {"_class_name": "DDIMScheduler", "beta_end": 0.01},
    LU,
    LU | SIGMA_MIN,
    LU | SCALED | {"solver_type": "heun"},
    LU | SCALED | SIGMA_MIN | {"prediction_type": "v_prediction", "lower_order_final": False},
]


def build(config, steps):
    scheduler = DPMSolverMultistepScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    return scheduler


def trajectory(config, steps):
    scheduler = build(config, steps)
    k = torch.arange(4, dtype=torch.float32)
    x = 1.5 * torch.sin(k + 1)
    latents = []
    for i, t in enumerate(scheduler.timesteps):
        m = 0.5 * torch.sin(3 * x + i) + 0.3 * torch.cos(k)
        x = scheduler.step(m, t, x).prev_sample
        latents.append([round(v, 7) for v in x.double().tolist()])
    return {"config": config, "steps": steps, "latents": latents}


def timesteps(config, steps):
    return {"config": config, "steps": steps, "timesteps": build(config, steps).timesteps.tolist()}


def main():
    spaced = [{"timestep_spacing": s, "steps_offset": offset} for s in SPACINGS for offset in (0, 1)]
    golden = {
        "timesteps": [
            timesteps(config, steps)
            for config in spaced + [{"use_karras_sigmas": True}, LU, LU | SCALED]
            for steps in (1, 2, 7, 15, 50, 333)
        ],
        "trajectories": [trajectory(config, steps) for config in CONFIGS for steps in (5, 16)],
    }
    Path(__file__).with_name("dpm-solver.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
