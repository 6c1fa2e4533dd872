"""Writes samplers.json: timesteps, noise levels and trajectories of diffusers' schedulers for Stable Diffusion, for
tests/samplers/stable-diffusion.test.ts.

Run: python tests/goldens/make-samplers.py   (PyTorch, diffusers and SciPy; written with 2.15 and 0.42)

The fake model output is m = 0.5·sin(3·x + i) + 0.3·cos(k) for the latent x as the model sees it, step index i and element
index k. The first latent and all further noise come from one generator of seed 3, in [1, 1, 2, 2]. A run that begins at a
later step begins at x₀ = 0.5·cos(k) noised by the scheduler.
"""

import json
from pathlib import Path

import diffusers
import torch

SPACINGS = ("leading", "trailing", "linspace")
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
V = {"prediction_type": "v_prediction"}
ZERO_SNR = V | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
KARRAS, EXPONENTIAL, BETA = ({f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta"))
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
SDE = {"algorithm_type": "sde-dpmsolver++"}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SHORT, LONG = (4, 15), (4, 15, 20, 50)


def spaced(config={}):
    return [SD | {"timestep_spacing": spacing} | config for spacing in SPACINGS]


RUNS = {
    "EulerDiscreteScheduler": [
        (LONG, [SD | LEADING, SD | {"timestep_spacing": "linspace"}, SD | LEADING | KARRAS]),
        (SHORT, spaced(V) + spaced({"prediction_type": "sample"}) + [
            {},
            SD | {"timestep_spacing": "leading"},
            SD | {"timestep_spacing": "trailing"},
            SD | ZERO_SNR,
            SD | KARRAS,
            SD | LEADING | EXPONENTIAL,
            SD | EXPONENTIAL | V,
            SD | LEADING | BETA,
            SD | BETA | SIGMA_MIN,
            SD | SIGMA_MIN,
            SD | LEADING | SIGMA_MIN | KARRAS,
            {"beta_schedule": "squaredcos_cap_v2"},
        ]),
    ],
    "EulerAncestralDiscreteScheduler": [
        (LONG, [SD | {"timestep_spacing": "trailing", "steps_offset": 1}]),
        (SHORT, spaced(V) + [{}, SD | LEADING, SD | ZERO_SNR]),
    ],
    "DDPMScheduler": [
        (LONG, [SD | {"clip_sample": False} | LEADING]),
        (SHORT, spaced({"clip_sample": False}) + [
            {},
            SD | {"clip_sample_range": 0.5, "variance_type": "fixed_small_log"},
            SD | LEADING | {"variance_type": "fixed_large", "clip_sample": False},
            SD | {"clip_sample": False, "prediction_type": "sample"},
            SD | {"clip_sample": False} | ZERO_SNR,
        ]),
    ],
    "LCMScheduler": [
        ((1, 4, 8, 15, 20, 50), [{}]),
        ((4, 8), [
            V | {"rescale_betas_zero_snr": True},
            {"prediction_type": "sample", "original_inference_steps": 100},
            {"clip_sample": True, "timestep_scaling": 0.1},
        ]),
    ],
    "DPMSolverMultistepScheduler": [
        (LONG, [SD | {"solver_order": 3}, SD | SDE | KARRAS]),
        (SHORT, [
            *spaced({"solver_order": 3} | V),
            SD | {"solver_order": 3} | KARRAS,
            SD | {"solver_order": 3, "lower_order_final": False} | SIGMA_MIN,
            SD | {"solver_order": 3, "euler_at_final": True} | SIGMA_MIN,
            SD | ZERO_SNR | {"solver_order": 3},
            SD | EXPONENTIAL,
            SD | BETA,
            SD | BETA | {"solver_type": "heun"} | V,
            *spaced(SDE),
            SD | SDE | V | LEADING | {"solver_type": "heun"},
            SD | SDE | SIGMA_MIN | {"solver_type": "heun", "lower_order_final": False},
            SD | SDE | {"solver_order": 1},
            SD | SDE | ZERO_SNR,
            SD | SDE | KARRAS | SIGMA_MIN | {"euler_at_final": True},
            FLOW | {"solver_order": 3},
            FLOW | {"solver_order": 3, "flow_shift": 3.0},
        ]),
    ],
    "UniPCMultistepScheduler": [
        (LONG, [SD, SD | {"solver_order": 3}, SD | KARRAS]),
        (SHORT, [
            *spaced(V),
            *spaced({"prediction_type": "sample", "solver_order": 3}),
            SD | {"solver_order": 1},
            SD | LEADING | {"solver_order": 3},
            SD | {"solver_order": 3, "lower_order_final": False} | SIGMA_MIN,
            SD | {"solver_type": "bh1"} | SIGMA_MIN,
            SD | {"solver_type": "bh1", "solver_order": 3} | SIGMA_MIN,
            SD | {"predict_x0": False} | SIGMA_MIN,
            SD | {"predict_x0": False, "solver_order": 3, "solver_type": "bh1"} | SIGMA_MIN | V,
            SD | {"predict_x0": False, "prediction_type": "sample"} | SIGMA_MIN,
            SD | {"disable_corrector": [0, 2]},
            SD | EXPONENTIAL,
            SD | BETA | {"solver_order": 3},
            SD | ZERO_SNR,
        ]),
    ],
    "DEISMultistepScheduler": [
        (LONG, [SD, SD | {"solver_order": 3}, SD | KARRAS]),
        (SHORT, [
            {},
            *spaced({"solver_order": 3} | V),
            *spaced({"prediction_type": "sample"}),
            SD | {"solver_order": 1},
            SD | LEADING | {"solver_order": 3},
            SD | {"solver_order": 3, "lower_order_final": False},
            SD | LEADING | V | {"lower_order_final": False},
            SD | {"solver_order": 3} | KARRAS,
            SD | EXPONENTIAL | {"solver_order": 3, "lower_order_final": False},
            SD | BETA | V,
            {"beta_schedule": "squaredcos_cap_v2"},
            FLOW,
            FLOW | {"solver_order": 3},
            FLOW | {"solver_order": 3, "lower_order_final": False, "flow_shift": 3.0},
            FLOW | {"solver_order": 1, "flow_shift": 0.5},
        ]),
    ],
    "PNDMScheduler": [
        (LONG, [SD | LEADING | {"skip_prk_steps": True}]),
        ((1, 2, 4, 15), [config | {"skip_prk_steps": True} for config in spaced(V) + [
            {},
            SD | {"set_alpha_to_one": True},
            SD | {"timestep_spacing": "trailing"},
            SD | {"timestep_spacing": "linspace"},
        ]]),
    ],
    "DDIMScheduler": [
        (SHORT, [
            SD | LEADING | {"clip_sample": False, "set_alpha_to_one": False},
            SD | ZERO_SNR | {"clip_sample": False},
        ]),
    ],
}
ETA = [
    (0.5, SD | LEADING | {"clip_sample": False}),
    (1, SD | {"timestep_spacing": "trailing", "clip_sample": False} | V),
    (1, {}),
]
LATE = {
    "EulerDiscreteScheduler": [SD | LEADING, SD | {"timestep_spacing": "linspace"}],
    "EulerAncestralDiscreteScheduler": [SD | {"timestep_spacing": "trailing"}],
    "DDPMScheduler": [SD | LEADING | {"clip_sample": False}],
    "LCMScheduler": [{}],
    "DPMSolverMultistepScheduler": [SD | {"solver_order": 3}, SD | SDE | KARRAS],
    "UniPCMultistepScheduler": [SD | {"solver_order": 3}],
    "DEISMultistepScheduler": [SD | {"solver_order": 3}],
    "PNDMScheduler": [SD | LEADING | {"skip_prk_steps": True}],
    "DDIMScheduler": [SD | LEADING | {"clip_sample": False}],
}


def rounded(values):
    return [float(f"{value:.8g}") for value in values.double().flatten().tolist()]


def run(name, config, steps, eta=None, begin=0):
    scheduler = getattr(diffusers, name).from_config(config)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps[begin:]
    generator = torch.Generator().manual_seed(3)
    shape = (1, 1, 2, 2)
    k = torch.arange(4, dtype=torch.float32).reshape(shape)
    x = torch.randn(shape, generator=generator)
    if begin > 0:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        x = scheduler.add_noise(0.5 * torch.cos(k), x, timesteps[:1])
    else:
        x = x * scheduler.init_noise_sigma
    first = rounded(x)
    # The samplers have exactly n steps, where the reference, of "trailing" spacing, may have one more.
    latents = []
    for i, t in enumerate(timesteps):
        m = 0.5 * torch.sin(3 * scheduler.scale_model_input(x, t) + i) + 0.3 * torch.cos(k)
        stochastic = name in ("EulerAncestralDiscreteScheduler", "DDPMScheduler", "LCMScheduler",
                              "DPMSolverMultistepScheduler", "DDIMScheduler")
        options = ({"generator": generator} if stochastic else {}) | ({"eta": eta} if eta is not None else {})
        x = scheduler.step(m, t, x, **options).prev_sample
        assert torch.isfinite(x).all(), (name, config, steps, i)
        latents.append(rounded(x))
    if name == "DEISMultistepScheduler" and config.get("use_flow_sigmas"):
        latents.pop()  # a step of no length, see flow-deis.ts
    sigmas = {"sigmas": rounded(scheduler.sigmas)} if "Euler" in name else {}
    return {"config": {"_class_name": name} | config, "steps": steps, "begin": begin, "first": first,
            "timesteps": rounded(timesteps), "latents": latents} | sigmas | ({"eta": eta} if eta is not None else {})


def main():
    runs = [run(name, config, steps) for name, groups in RUNS.items() for counts, configs in groups
            for config in configs for steps in counts]
    runs += [run("DDIMScheduler", config, steps, eta) for eta, config in ETA for steps in SHORT]
    runs += [run(name, config, steps, begin=begin) for name, configs in LATE.items() for config in configs
             for steps, begin in ((4, 1), (15, 6))]
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in runs)
    Path(__file__).with_name("samplers.json").write_text(f"[{lines}]\n")


main()
