"""Fits a solver of few steps to an exported DiT, as `femo calibrate solver` does, with derivatives by PyTorch.

    npx femo calibrate solver --model ../models/avatars-dit --full-steps 7 --iterations 0 --state fit.json
    python fit_solver.py --model ../models/avatars-dit --state fit.json --images 128 --iterations 6
    npx femo calibrate solver --model ../models/avatars-dit --full-steps 7 --iterations 6 --state fit.json

The first command writes the published or placed solver to begin with, the last judges what came of it on other images and
prints the JSON. Gauss-Newton on the mean log squared error, as there; the slopes of a run of the network come from
forward-mode derivatives in bfloat16, all at once, whose errors are far below what a step of Gauss-Newton leaves, and the
images themselves from float32. The images are those of `femo calibrate solver` (seeds from 0, classes in turns).
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
STEPS_PER_SLOPES = 3
WORTHWHILE = 0.01
CLOSEST = 0.2


class Network:
    """Guided noise, and its derivatives."""

    def __init__(self, model, guidance: float):
        self.model, self.guidance = model, guidance

    def __call__(self, x, t, labels):
        rows = t.expand(2 * len(x))
        both = torch.cat([labels, torch.full_like(labels, self.model.config.classes)])
        with_class, without = self.model(torch.cat([x, x]), rows, both).float().chunk(2)
        return without + self.guidance * (with_class - without)

    def slopes(self, x, t, labels, dx, dt):
        """Along every tangent: dx [P, ...] of x, dt [P] of t."""

        def along(dx_one, dt_one):
            return torch.func.jvp(lambda a, b: self(a, b, labels), (x, t), (dx_one, dt_one))[1]

        with torch.autocast(x.device.type, torch.bfloat16):
            return torch.func.vmap(along, chunk_size=16)(dx, dt)


class Levels:
    """Signal and noise at a timestep, and how they go with it."""

    def __init__(self, final: float):
        power = alphas_cumprod().double()
        self.log_snr = 0.5 * (power.log() - (-power).log1p())
        self.final = final

    def at(self, t: int | None):
        """alpha, sigma, and their derivatives by t."""
        if t is None:
            return math.sqrt(self.final), math.sqrt(1 - self.final), 0.0, 0.0
        lam = self.log_snr[t].item()
        low, high = max(t - 1, 0), min(t + 1, len(self.log_snr) - 1)
        slope = (self.log_snr[high] - self.log_snr[low]).item() / (high - low)
        alpha, sigma = (1 / (1 + math.exp(-2 * lam))) ** 0.5, (1 / (1 + math.exp(2 * lam))) ** 0.5
        return alpha, sigma, slope * alpha * sigma**2, -slope * sigma * alpha**2


class Solver:
    """The numbers that are free: weights of earlier x0, and all timesteps but the first."""

    def __init__(self, plain: dict):
        self.plain = plain
        self.n = len(plain["timesteps"])
        self.places = [(i, j) for i in range(self.n) for j in range(i)]
        first = plain["timesteps"]
        self.at_least = [0.0] + [max(1.0, CLOSEST * (a - b)) for a, b in zip(first, first[1:])]

    def values(self, plain: dict) -> torch.Tensor:
        weights = [plain["table"][i][j] for i, j in self.places]
        return torch.tensor(weights + plain["timesteps"][1:], dtype=torch.float64)

    def solver(self, values: torch.Tensor) -> dict:
        count = len(self.places)
        table = [[0.0] * (i + 1) for i in range(self.n)]
        for (i, j), value in zip(self.places, values[:count].tolist()):
            table[i][j] = value
        for row in table:
            row[-1] = 1 - sum(row[:-1])
        timesteps = [self.plain["timesteps"][0]]
        for i, value in enumerate(values[count:].tolist(), start=1):
            least, most = sum(self.at_least[i + 1 :]), timesteps[-1] - self.at_least[i]
            timesteps.append(round(min(most, max(least, value))))
        final = self.plain.get("finalAlphaBar", 1)
        return {"sampler": "multistep", "timesteps": timesteps, "table": table, "finalAlphaBar": final}


def walk(network, solver, noise, labels):
    """Where the solver brings the images.  [images, C, H, W]"""
    levels = Levels(solver["finalAlphaBar"])
    ends = []
    for x, own in zip(noise.split(BATCH), labels.split(BATCH)):
        known = []
        for i, t in enumerate(solver["timesteps"]):
            alpha, sigma, _, _ = levels.at(t)
            after = solver["timesteps"][i + 1] if i + 1 < len(solver["timesteps"]) else None
            alpha_after, sigma_after, _, _ = levels.at(after)
            with torch.no_grad():
                eps = network(x, torch.tensor(float(t), device=x.device), own)
            known.append((x - sigma * eps) / alpha)
            ratio = sigma_after / sigma
            mean = sum(weight * start for weight, start in zip(solver["table"][i], known))
            x = ratio * x + (alpha_after - alpha * ratio) * mean
        ends.append(x)
    return torch.cat(ends)


def slopes(network, free: Solver, solver, noise, labels):
    """How the ends go with every free number.  Yields [P, batch, ...], batch by batch."""
    levels, n, count = Levels(solver["finalAlphaBar"]), free.n, len(free.places)
    for x, own in zip(noise.split(BATCH), labels.split(BATCH)):
        dx = torch.zeros(count + n - 1, *x.shape, device=x.device)
        known, d_known = [], []
        for i, t in enumerate(solver["timesteps"]):
            alpha, sigma, d_alpha, d_sigma = levels.at(t)
            own_time = count + i - 1  # t's place among the numbers
            # Those that have had an effect so far, and t itself.
            active = [p for p, (row, _) in enumerate(free.places) if row < i] + list(range(count, own_time + 1))
            time = torch.tensor(float(t), device=x.device)
            with torch.no_grad():
                eps = network(x, time, own)
            d_eps = torch.zeros_like(dx)
            if active:
                dt = torch.tensor([1.0 if p == own_time else 0.0 for p in active], device=x.device)
                d_eps[active] = network.slopes(x, time, own, dx[active], dt)
            start = (x - sigma * eps) / alpha
            d_start = (dx - sigma * d_eps) / alpha
            if i > 0:
                d_start[own_time] -= (d_sigma * eps + d_alpha * start) / alpha
            known.append(start)
            d_known.append(d_start)

            after = solver["timesteps"][i + 1] if i + 1 < n else None
            alpha_after, sigma_after, d_alpha_after, d_sigma_after = levels.at(after)
            ratio = sigma_after / sigma
            scale = alpha_after - alpha * ratio
            row = solver["table"][i]
            mean = sum(weight * one for weight, one in zip(row, known))
            d_next = ratio * dx + scale * sum(weight * one for weight, one in zip(row, d_known))
            for p, (r, j) in enumerate(free.places):
                if r == i:
                    d_next[p] += scale * (known[j] - start)
            if i > 0:
                d_ratio = -ratio * d_sigma / sigma
                d_next[own_time] += d_ratio * x - (d_alpha * ratio + alpha * d_ratio) * mean
            if after is not None:
                d_ratio = d_sigma_after / sigma
                d_next[own_time + 1] += d_ratio * x + (d_alpha_after - alpha * d_ratio) * mean
            x, dx = ratio * x + scale * mean, d_next
        yield dx


def squared_errors(ends, targets):
    return (ends - targets).double().square().flatten(1).mean(1).clamp_min(FLOOR)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="of `femo calibrate solver`; goes on from it, and is written")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--steps", type=int, default=50, help="of the images to come near to")
    parser.add_argument("--targets", type=Path, help="file that keeps them")
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
        targets = torch.cat([sample_ddim(model, own, args.steps, args.guidance, x) for own, x in parts])
        if args.targets:
            torch.save(targets.cpu(), args.targets)
    say(f"{len(targets)} targets")

    state = json.loads(args.state.read_text())
    free = Solver(state["solver"])
    solver = free.solver(free.values(state["solver"]))
    ends = walk(network, solver, noise, labels)
    error = squared_errors(ends, targets).log().mean().item()
    first, damping = error, state["damping"]
    say("begins", to_db(error))

    for iteration in range(state["iteration"], args.iterations):
        parts, at = [], 0
        for part in slopes(network, free, solver, noise, labels):
            parts.append(part.flatten(2).cpu())
            at += part.shape[1]
            if at % 32 == 0:
                say("slopes of", at)
        before = error
        for _ in range(STEPS_PER_SLOPES):
            values, found, from_error = free.values(solver), None, error
            matrix, gradient = equations(parts, ends, targets)
            helped = None
            for factor in (1.0, None):
                own = damping * (factor if factor else 0.1 if helped else 10)
                change = torch.linalg.solve(matrix + own * matrix.diagonal().diag(), -gradient)
                tried = free.solver(values + change)
                there = walk(network, tried, noise, labels)
                now = squared_errors(there, targets).log().mean().item()
                helped = now < error
                if helped:
                    error, found = now, (tried, there, own)
            if found:
                solver, ends, damping = found
            say("step", to_db(error), f"damping {damping:.0e}")
            if from_error - error < WORTHWHILE:
                break
        state |= {"solver": solver, "iteration": iteration + 1, "errors": [first, error], "damping": damping}
        args.state.write_text(json.dumps(state))
        say(f"iteration {iteration + 1}: {to_db(before)} to {to_db(error)}", solver["timesteps"])
        if error >= before:
            break


def equations(parts, ends, targets):
    """Gauss-Newton's, each image weighed by one over its mean square."""
    weights = 1 / squared_errors(ends, targets)
    residuals = (ends - targets).flatten(1).cpu()
    count = parts[0].shape[0]
    matrix, gradient = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    at = 0
    for part in parts:
        size = part.shape[1]
        for k in range(size):
            weight, slope = weights[at + k].item(), part[:, k].double()
            matrix += weight * slope @ slope.T
            gradient += weight * slope @ residuals[at + k].double()
        at += size
    return matrix, gradient


def to_db(log_error: float) -> str:
    return f"{-10 / math.log(10) * log_error + 20 * math.log10(2):.2f} dB"


if __name__ == "__main__":
    main()
