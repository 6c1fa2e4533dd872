"""Writes flow-match-euler.json: noise levels, timesteps and steps of diffusers' FlowMatchEulerDiscreteScheduler and of its
DPMSolverMultistepScheduler for flows, and quantiles of scipy's Beta(a, a), for tests/samplers/flow-*.test.ts.

Run: python tests/goldens/make-flow-match-euler.py   (PyTorch, diffusers and scipy; written with 2.15, 0.42 and 1.17)

All numbers are float32, written so that they come back to the bit; quantiles are float64. "tokens" is the length of the
image's sequence, from which mu comes as FLUX's pipeline has it; "list" is what the pipeline passes as sigmas: linspace(1,
1/n, n) if it is "trailing", nothing if it is null. Steps go from "first" by the model outputs "velocities".
"""

import itertools
import json
from pathlib import Path

import numpy as np
import scipy.stats
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

DYNAMIC = {"use_dynamic_shifting": True}
SHIFTS = [
    ({}, None),
    ({"shift": 3.0}, None),
    (DYNAMIC, 1024),
    (DYNAMIC, 16384),
    (DYNAMIC | {"time_shift_type": "linear", "base_shift": 0.4, "max_shift": 1.7}, 3600),
]
TERMINALS = [{}, {"shift_terminal": 0.1}]
CONVERSIONS = [{}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}]
OTHERS = [
    ({"shift": 2.5, "num_train_timesteps": 500}, None, None, 9),
    ({"shift": 2.5, "num_train_timesteps": 500}, None, "trailing", 9),
    ({"shift": 3.0}, None, [1.0, 0.8, 0.3, 0.05], 4),
    (DYNAMIC, 4080, [0.9, 0.7, 0.1], 3),
    (DYNAMIC | {"base_image_seq_len": 64, "max_image_seq_len": 512}, 100, "trailing", 50),
    ({"shift": 3.0}, None, None, 1000),
] + [
    # of some of them the first level is a float32 above 1
    ({"shift": shift}, None, given, 5) for shift in (0.02, 0.2, 1.15, 6.7) for given in ("trailing", None)
]
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SOLVERS = [
    {},
    {"flow_shift": 3.0},
    {"flow_shift": 3.0, "solver_type": "heun"},
    {"flow_shift": 3.0, "solver_order": 1},
    {"lower_order_final": False, "euler_at_final": True},
    {"flow_shift": 2.0, "num_train_timesteps": 500},
]


def floats(values):
    return [float(str(np.float32(v))) for v in np.asarray(values, dtype=np.float32).reshape(-1)]


def mu_of(config, tokens):
    keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    defaults = dict(zip(keys, (256, 4096, 0.5, 1.15)))
    shortest, longest, base, most = (config.get(key, defaults[key]) for key in keys)
    slope = (most - base) / (longest - shortest)
    return tokens * slope + (base - slope * shortest)


def euler(config, tokens, given, steps):
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    sigmas = np.linspace(1.0, 1 / steps, steps) if given == "trailing" else given
    mu = None if tokens is None else mu_of(config, tokens)
    scheduler.set_timesteps(steps, sigmas=sigmas, mu=mu)
    return scheduler


def solver(config, steps, tokens=None):
    scheduler = DPMSolverMultistepScheduler(**FLOW, **config)
    scheduler.set_timesteps(steps, mu=None if tokens is None else mu_of(config, tokens))
    return scheduler


def levels(scheduler):
    return {"timesteps": floats(scheduler.timesteps), "sigmas": floats(scheduler.sigmas)}


def walked(scheduler):
    steps = len(scheduler.timesteps)
    generator = torch.Generator().manual_seed(steps)
    x = torch.randn([4], generator=generator)
    velocities = torch.randn([steps, 4], generator=generator)
    latents = []
    golden = {"first": floats(x)}
    scheduler.set_begin_index(0)
    for t, v in zip(scheduler.timesteps, velocities):
        x = scheduler.step(v, t, x).prev_sample
        latents.append(floats(x))
    return golden | {"velocities": [floats(v) for v in velocities], "latents": latents}


def schedules():
    grid = [
        (shift | terminal | conversion, tokens, given, steps)
        for (shift, tokens), terminal, conversion in itertools.product(SHIFTS, TERMINALS, CONVERSIONS)
        for given, steps in itertools.product(("trailing", None), (1, 2, 7, 28))
        if not (terminal and steps == 1)  # not a number
    ]
    for config, tokens, given, steps in grid + OTHERS:
        yield {"config": config, "tokens": tokens, "list": given, "steps": steps} | levels(
            euler(config, tokens, given, steps)
        )


def on_levels_of_euler(config, steps, tokens):
    scheduler = solver(config, steps)
    own = euler(DYNAMIC, tokens, "trailing", steps)
    scheduler.sigmas, scheduler.timesteps = own.sigmas, own.timesteps
    return {"config": config, "tokens": tokens, "steps": steps} | walked(scheduler)


def main():
    probabilities = [0, 1e-9, 1e-4, 0.01, 0.1, 1 / 3, 0.49999, 0.5, 0.6, 0.75, 0.9, 0.999, 1 - 1e-12, 1]
    golden = {
        "schedules": list(schedules()),
        "steps": [
            {"config": config, "tokens": tokens, "list": given, "steps": 6}
            | walked(euler(config, tokens, given, 6))
            for config, tokens, given in (({}, None, "trailing"), (DYNAMIC, 1024, "trailing"), ({"shift": 3.0}, None, None))
        ],
        "solver": [
            {"config": config, "tokens": None, "steps": steps} | levels(solver(config, steps)) | walked(solver(config, steps))
            for config in SOLVERS
            for steps in (1, 4, 16)
        ]
        + [
            {"config": DYNAMIC, "tokens": 1024, "steps": 7}
            | levels(solver(DYNAMIC, 7, 1024))
            | walked(solver(DYNAMIC, 7, 1024))
        ],
        "solverOnEuler": [
            on_levels_of_euler(config, steps, 1024)
            for config in ({}, {"solver_type": "heun", "lower_order_final": False})
            for steps in (1, 5, 16)
        ],
        "quantiles": [
            {"a": a, "p": p, "x": float(scipy.stats.beta.ppf(p, a, a))} for a in (0.6, 0.2, 1, 2.5) for p in probabilities
        ],
    }
    path = Path(__file__).with_name("flow-match-euler.json")
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
