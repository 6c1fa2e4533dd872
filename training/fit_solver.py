"""Fits a solver of few steps to an exported DiT, as `femo calibrate solver` does, with derivatives by PyTorch.

    npx femo calibrate solver --model ../models/avatars-dit --full-steps 7 --iterations 0 --state fit.json
    python fit_solver.py --model ../models/avatars-dit --state fit.json --images 512 --steps 6
    npx femo calibrate solver --model ../models/avatars-dit --full-steps 7 --iterations 6 --state fit.json

The first command writes the published or placed solver to begin with, the last judges what came of it on other images and
prints the JSON. Levenberg and Marquardt on the mean log squared error, as there, but for where the sums come from: the
gradient is that of all images, by reverse mode, which takes three times as long as drawing them, and the matrix, which takes
the slopes by every number and so a hundred times as long, that of the first `--matrix-images`. What it needs many images for
is the gradient. The images are those of `femo calibrate solver` (seeds from 0, classes in turns).
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch

from export import load_exported
from model import alphas_cumprod, sample_ddim

BATCH = 8
FLOOR = (0.5 / 127.5) ** 2 / 3  # half a level of 8 bits
CLOSEST = 0.2


class Network:
    """Guided noise."""

    def __init__(self, model, guidance: float):
        self.model, self.guidance = model, guidance

    def __call__(self, x, t, labels):
        rows = t.expand(2 * len(x))
        both = torch.cat([labels, torch.full_like(labels, self.model.config.classes)])
        with_class, without = self.model(torch.cat([x, x]), rows, both).float().chunk(2)
        return without + self.guidance * (with_class - without)


class Solver:
    """The numbers that are free, as one vector: weights of earlier x0, and all timesteps."""

    def __init__(self, start: dict, history: int):
        self.start, self.n = start, len(start["timesteps"])
        self.places = [(i, j) for i in range(self.n) for j in range(max(0, i - history), i)]
        first = start["timesteps"]
        self.at_least = [0.0] + [max(1.0, CLOSEST * (a - b)) for a, b in zip(first, first[1:])]
        self.log_snr = torch.special.logit(alphas_cumprod().double()) / 2

    def values(self, plain: dict) -> torch.Tensor:
        weights = [plain["table"][i][j] for i, j in self.places]
        return torch.tensor(weights + plain["timesteps"], dtype=torch.float64)

    def legal(self, values: torch.Tensor) -> torch.Tensor:
        """Timesteps fall, and keep from each other."""
        weights, wanted = values[: len(self.places)], values[len(self.places) :].tolist()
        timesteps, most = [], float(len(self.log_snr) - 1)
        for i, t in enumerate(wanted):
            timesteps.append(min(most - self.at_least[i], max(sum(self.at_least[i + 1 :]), t)))
            most = timesteps[-1]
        return torch.cat([weights, torch.tensor(timesteps, dtype=torch.float64)])

    def plain(self, values: torch.Tensor) -> dict:
        """As `multistep` is written."""
        rows = [[weight.item() for weight in row] for row in self.rows(values)]
        timesteps = [round(t) for t in values[len(self.places) :].tolist()]
        final = self.start.get("finalAlphaBar", 1)
        return {"sampler": "multistep", "timesteps": timesteps, "table": rows, "finalAlphaBar": final}

    def rows(self, values: torch.Tensor) -> list[list[torch.Tensor]]:
        """The table; the newest x0 takes what is left of 1."""
        free = dict(zip(self.places, values))
        table = []
        for i in range(self.n):
            fixed = torch.tensor(self.start["table"][i], dtype=torch.float64)
            earlier = [free.get((i, j), fixed[j]) for j in range(i)]
            table.append([*earlier, 1 - sum(earlier, torch.zeros((), dtype=torch.float64))])
        return table

    def stops(self, values: torch.Tensor):
        """Timestep, signal and noise of every run, and those at the end. Whole timesteps, with the slopes of real ones."""
        real = values[len(self.places) :]
        whole = real.detach().round()
        t, at = whole + (real - real.detach()), whole.long()
        low, high = (at - 1).clamp_min(0), (at + 1).clamp_max(len(self.log_snr) - 1)
        slope = (self.log_snr[high] - self.log_snr[low]) / (high - low)
        log_snr = self.log_snr[at] + slope * (t - whole)
        final = torch.tensor(self.start.get("finalAlphaBar", 1), dtype=torch.float64)
        powers = [*torch.sigmoid(2 * log_snr), final]
        return t.float(), [power.sqrt().float() for power in powers], [(1 - power).sqrt().float() for power in powers]

    def walk(self, network, values, noise, labels):
        """Where the solver brings a batch.  [images, C, H, W]"""
        t, alpha, sigma = self.stops(values)
        x, known = noise, []
        for i, row in enumerate(self.rows(values)):
            known.append((x - sigma[i] * network(x, t[i].to(x.device), labels)) / alpha[i])
            ratio = sigma[i + 1] / sigma[i]
            mean = sum(weight.float() * start for weight, start in zip(row, known))
            x = ratio * x + (alpha[i + 1] - alpha[i] * ratio) * mean
        return x


def squared_errors(ends, targets):
    return (ends - targets).double().square().flatten(1).mean(1).clamp_min(FLOOR)


def gradient_of(solver: Solver, network, values, images):
    """Mean log squared error of the images, and half its gradient, by image."""
    leaf, total, gradient = values.clone().requires_grad_(), 0.0, torch.zeros_like(values)
    for noise, labels, targets in zip(*(part.split(BATCH) for part in images)):
        error = squared_errors(solver.walk(network, leaf, noise, labels), targets).log().sum()
        gradient += torch.autograd.grad(error, leaf)[0] / 2
        total += error.item()
    return total / len(images[0]), gradient / len(images[0])


def matrix_of(solver: Solver, network, values, images):
    """Gauss-Newton's, by image: each weighs by one over its mean square. Slopes in bfloat16, whose errors do not count."""
    matrix = torch.zeros(len(values), len(values), dtype=torch.float64)
    for noise, labels, targets in zip(*(part.split(BATCH) for part in images)):
        with torch.no_grad():
            weights = 1 / squared_errors(solver.walk(network, values, noise, labels), targets)

        def along(tangent):
            return torch.func.jvp(lambda v: solver.walk(network, v, noise, labels), (values,), (tangent,))[1]

        with torch.autocast(noise.device.type, torch.bfloat16):
            slopes = torch.func.vmap(along, chunk_size=8)(torch.eye(len(values), dtype=torch.float64))
        for k, weight in enumerate(weights):
            slope = slopes[:, k].flatten(1).double().cpu()
            matrix += weight.item() * slope @ slope.T / slope.shape[1]
    return matrix / len(images[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="of `femo calibrate solver`; goes on from it, and is written")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--matrix-images", type=int, default=48)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--history", type=int, help="earlier steps whose weights are free (default: all up to 7 runs, 4 beyond)")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--target-steps", type=int, default=50, help="of the images to come near to")
    parser.add_argument("--targets", type=Path, help="file that keeps them")
    parser.add_argument("--matrix", type=Path, help="file that keeps the matrix")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_exported(args.model).eval().requires_grad_(False).to(device)
    network = Network(model, args.guidance)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(args.images)]
    config = model.config
    shape = (1, config.channels, config.size, config.size)
    noise = torch.cat([torch.randn(shape, generator=seed) for seed in seeds]).to(device)
    labels = torch.arange(args.images, device=device) % config.classes

    begun = time.time()
    say = lambda *words: print(f"{time.time() - begun:.0f} s", *words, flush=True)  # noqa: E731
    if args.targets and args.targets.exists():
        targets = torch.load(args.targets, weights_only=True)[: args.images].to(device)
    else:
        parts = zip(labels.split(BATCH), noise.split(BATCH))
        with torch.no_grad():
            targets = torch.cat([sample_ddim(model, own, args.target_steps, args.guidance, x) for own, x in parts])
        if args.targets:
            torch.save(targets.cpu(), args.targets)
    say(f"{len(targets)} targets")

    state = json.loads(args.state.read_text())
    runs = len(state["solver"]["timesteps"])
    solver = Solver(state["solver"], args.history or (runs if runs <= 7 else 4))
    images = (noise, labels, targets)
    values = solver.values(state["solver"])
    if args.matrix and args.matrix.exists():
        matrix = torch.tensor(json.loads(args.matrix.read_text()), dtype=torch.float64)
    else:
        matrix = matrix_of(solver, network, values, [part[: args.matrix_images] for part in images])
        if args.matrix:
            args.matrix.write_text(json.dumps(matrix.tolist()))
    say(f"the matrix of {len(values)} numbers")

    error, gradient = gradient_of(solver, network, values, images)
    first, damping = (error if state["iteration"] == 0 else state["errors"][0]), state["damping"]
    say("begins", to_db(error))
    for step in range(args.steps):
        change = torch.linalg.solve(matrix + damping * matrix.diagonal().diag(), -gradient)
        tried = solver.legal(values + change)
        now, there = gradient_of(solver, network, tried, images)
        helped = now < error
        say(f"step {step + 1}: {to_db(error)} to {to_db(now)}, damping {damping:.0e}", solver.plain(tried)["timesteps"])
        damping *= 0.3 if helped else 10
        if helped:
            values, error, gradient = tried, now, there
            state["iteration"] += 1
        state |= {"solver": solver.plain(values), "errors": [first, error], "damping": damping}
        args.state.write_text(json.dumps(state))


def to_db(log_error: float) -> str:
    return f"{-10 / math.log(10) * log_error + 20 * math.log10(2):.2f} dB"


if __name__ == "__main__":
    main()
