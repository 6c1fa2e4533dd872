"""Fits a solver of few steps to an exported DiT, as `femo calibrate solver` does, with gradients by PyTorch.

    npx femo calibrate solver --model ../models/avatars-dit --target reference --full-steps 7 --iterations 0 --state fit.json
    python fit_solver.py --model ../models/avatars-dit --state fit.json --images 256 --steps 40
    npx femo calibrate solver --model ../models/avatars-dit --target reference --full-steps 7 --iterations 40 --state fit.json

The first command writes the published or placed solver to begin with; the last, whose `--iterations` are no more than those
done, judges what came of it on other images and prints the JSON. The mean log squared error falls by steps of Gauss and
Newton, as there, but a batch of images at a time: the gradient of a batch is had by reverse mode for three times what drawing
it costs, where slopes by every number cost fifty times, so that these are taken of a few images, once. Steps get shorter as
they go, and the solver is the mean of the last ones. The images are those of `femo calibrate solver` (seeds from 0, classes
in turns).
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
STEPS_PER_MATRIX = 4  # how far off images are changes slowly
MOST = 3  # times the average that an image counts for


class Network:
    """Guided noise."""

    def __init__(self, model, guidance: float):
        self.model, self.guidance = model, guidance

    def __call__(self, x, t, labels):
        rows = t.expand(len(x)).repeat(2)
        both = torch.cat([labels, torch.full_like(labels, self.model.config.classes)])
        with_class, without = self.model(torch.cat([x, x]), rows, both).float().chunk(2)
        return without + self.guidance * (with_class - without)


class Solver:
    """The numbers that are free, as one vector: weights of earlier x0, what the network is told, and the solver's own levels."""

    def __init__(self, start: dict, history: int):
        self.start, self.n = start, len(start["timesteps"])
        self.places = [(i, j) for i in range(self.n) for j in range(max(0, i - history), i)]
        _, told, levels = self.parts(self.values(start))
        self.apart = [[0.0] + [max(1.0, CLOSEST * gap) for gap in self.gaps(times)] for times in (told, levels)]
        self.log_snr = torch.special.logit(alphas_cumprod().double()) / 2

    def values(self, plain: dict) -> torch.Tensor:
        weights = [plain["table"][i][j] for i, j in self.places]
        told = plain["timesteps"]
        return torch.tensor(weights + told + plain.get("levelTimesteps", told), dtype=torch.float64)

    def parts(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return values.split([len(self.places), self.n, self.n], dim=-1)

    @staticmethod
    def gaps(times: torch.Tensor) -> list[float]:
        return (times[:-1] - times[1:]).tolist()

    def legal(self, values: torch.Tensor) -> torch.Tensor:
        """Timesteps and levels fall, and keep from each other."""
        weights, *lists = self.parts(values)
        latest = float(len(self.log_snr) - 1)
        return torch.cat([weights, *(self.falling(times, apart, latest) for times, apart in zip(lists, self.apart))])

    @staticmethod
    def falling(wanted: torch.Tensor, apart: list[float], most: float) -> torch.Tensor:
        found = []
        for i, t in enumerate(wanted.tolist()):
            most = max(0.0, min(most - apart[i], max(sum(apart[i + 1 :]), t)))
            found.append(most)
        return torch.tensor(found, dtype=torch.float64)

    def plain(self, values: torch.Tensor) -> dict:
        """As `multistep` is written."""
        _, told, levels = self.parts(values)
        return {
            "sampler": "multistep",
            "timesteps": [round(t) for t in told.tolist()],
            "levelTimesteps": levels.tolist(),
            "table": [[weight.item() for weight in row] for row in self.rows(values)],
            "finalAlphaBar": self.start.get("finalAlphaBar", 1),
        }

    def rows(self, values: torch.Tensor) -> list[list[torch.Tensor]]:
        """The table; the newest x0 takes what is left of 1. Of values [..., numbers] it has weights [...]."""
        free = dict(zip(self.places, values.unbind(-1)))
        table = []
        for i in range(self.n):
            fixed = torch.tensor(self.start["table"][i], dtype=torch.float64)
            earlier = [free.get((i, j), fixed[j]) for j in range(i)]
            table.append([*earlier, 1 - sum(earlier, torch.zeros(values.shape[:-1], dtype=torch.float64))])
        return table

    def stops(self, values: torch.Tensor):
        """What the network is told, and signal and noise, of every run and at the end.

        Whole timesteps are told, with the slopes of real ones.
        """
        _, told, levels = self.parts(values)
        told = told.detach().round() + (told - told.detach())
        below = levels.detach().floor().long().clamp_max(len(self.log_snr) - 2)
        low, high = self.log_snr[below], self.log_snr[below + 1]
        log_snr = low + (high - low) * (levels - below)
        final = torch.full(values.shape[:-1], self.start.get("finalAlphaBar", 1), dtype=torch.float64)
        powers = [*torch.sigmoid(2 * log_snr).unbind(-1), final]
        return told.unbind(-1), [power.sqrt() for power in powers], [(1 - power).sqrt() for power in powers]

    def walk(self, network, values, noise, labels, outputs=()):
        """Where the solver brings a batch, and what the network says on the way. Of that what is known is given.

        values [numbers] or, for each image its own, [images, numbers]; noise [images, C, H, W]
        """
        t, alpha, sigma = self.stops(values)
        x, known, said = noise, [], list(outputs)

        def of_image(number):
            return number.float().to(x.device).reshape(-1, 1, 1, 1)

        for i, row in enumerate(self.rows(values)):
            if i == len(said):
                said.append(network(x, t[i].float().to(x.device), labels))
            known.append((x - of_image(sigma[i]) * said[i]) / of_image(alpha[i]))
            ratio = sigma[i + 1] / sigma[i]
            mean = sum(of_image(weight) * start for weight, start in zip(row, known))
            x = of_image(ratio) * x + of_image(alpha[i + 1] - alpha[i] * ratio) * mean
        return x, said

    def shortened(self, values, change):
        """As much of a change as keeps slopes meaningful: a quarter of a time's distance to its neighbours, 0.1 of a weight."""
        most = [torch.full((len(self.places),), 0.1, dtype=torch.float64)]
        for times in self.parts(values)[1:]:
            gaps = torch.tensor([*self.gaps(times), times[-1].item()], dtype=torch.float64)
            most.append(torch.minimum(gaps, torch.cat([gaps[:1], gaps[:-1]])).clamp_min(4) / 4)
        return change * (torch.cat(most) / change.abs().clamp_min(1e-12)).min().clamp_max(1)

    def moves(self):
        """A step of every number to see what it does, and how many runs come before it matters."""
        _, told, levels = self.parts(self.values(self.start))
        told_steps = [-2.0, *(max(2.0, round(0.05 * gap)) for gap in self.gaps(told))]
        level_steps = [-2.0, *(0.05 * gap for gap in self.gaps(levels))]
        runs_of_levels = [1, *range(1, self.n)]  # noise is noise whatever the solver takes it for
        weights = [(0.01, i + 1) for i, _ in self.places]
        return weights + list(zip(told_steps, range(self.n))) + list(zip(level_steps, runs_of_levels))


def squared_errors(ends, targets):
    return (ends - targets).double().square().flatten(1).mean(1).clamp_min(FLOOR)


def batches(images):
    return zip(*(part.split(BATCH) for part in images))


def gradients_of(solver: Solver, network, values, images):
    """Log squared errors of the images, and half their gradients.  [images], [images, numbers]"""
    errors, gradients = [], []
    for noise, labels, targets in batches(images):
        leaf = values.repeat(len(noise), 1).requires_grad_()
        error = squared_errors(solver.walk(network, leaf, noise, labels)[0], targets).log()
        gradients.append(torch.autograd.grad(error.sum(), leaf)[0] / 2)
        errors.append(error.detach().cpu())
    return torch.cat(errors), torch.cat(gradients)


def shares(sizes, average):
    """How far images count, so that none of those far beyond the average does for many times as much."""
    return (MOST * average / sizes.clamp_min(1e-12)).clamp_max(1)


class Curvature:
    """Gauss and Newton's matrix of a few images. Their slopes are taken once; how far off they are, which weighs them, changes."""

    def __init__(self, solver: Solver, network, values, images):
        self.solver, self.network, self.images = solver, network, images
        with torch.no_grad():
            self.products = torch.cat([self.products_of(values, *batch) for batch in batches(images)])

    def products_of(self, values, noise, labels, targets):
        """Of slopes, by differences, in which the runs before are shared.  [images, numbers, numbers]"""
        here, outputs = self.solver.walk(self.network, values, noise, labels)
        slopes = []
        for k, (step, runs) in enumerate(self.solver.moves()):
            moved = values.clone()
            moved[k] += step
            there, _ = self.solver.walk(self.network, moved, noise, labels, outputs[:runs])
            slopes.append(((there - here) / step).flatten(1))
        all_slopes = torch.stack(slopes, 1).double().cpu()
        return all_slopes @ all_slopes.mT / all_slopes.shape[2]

    @torch.no_grad()
    def matrix(self, values, damping):
        ends = torch.cat([self.solver.walk(self.network, values, x, own)[0] for x, own, _ in batches(self.images)])
        weights = 1 / squared_errors(ends, self.images[2]).cpu()
        own = weights[:, None, None] * self.products
        share = torch.ones(len(own), dtype=torch.float64)
        for _ in range(20):
            matrix = (share[:, None, None] * own).mean(0)
            matrix += damping * matrix.diagonal().diag()
            bending = torch.linalg.solve(matrix, own).diagonal(dim1=1, dim2=2).sum(1)
            share = shares(bending, (share * bending).mean())
        return matrix


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="of `femo calibrate solver`; goes on from it, and is written")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--slope-images", type=int, default=16, help="of which the slopes by every number are taken")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--step-images", type=int, default=32, help="of which a step takes the gradient")
    parser.add_argument("--rate", type=float, default=0.5, help="of a step of Gauss-Newton, to begin with")
    parser.add_argument("--damping", type=float, default=0.1)
    parser.add_argument("--history", type=int, help="earlier steps whose weights are free (default: all up to 7 runs, 4 beyond)")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--target-steps", type=int, default=50, help="of the images to come near to")
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
    curvature = Curvature(solver, network, values, [part[: args.slope_images] for part in images])
    say(f"slopes by {len(values)} numbers")

    shuffled = torch.Generator().manual_seed(state["iteration"])
    order, passed = torch.empty(0, dtype=torch.long), []
    for step in range(args.steps):
        if len(order) < args.step_images:
            order = torch.cat([order, torch.randperm(len(noise), generator=shuffled)])
        chosen, order = order[: args.step_images].to(device), order[args.step_images :]
        if step % STEPS_PER_MATRIX == 0:
            matrix = curvature.matrix(values, args.damping)
        error, gradients = gradients_of(solver, network, values, [part[chosen] for part in images])
        steps = -torch.linalg.solve(matrix, gradients.T).T
        lengths = (-(steps * gradients).sum(1)).sqrt()
        rate = args.rate * (1 + math.cos(math.pi * step / args.steps)) / 2
        change = rate * (shares(lengths, lengths.median())[:, None] * steps).mean(0)
        values = solver.legal(values + solver.shortened(values, change))
        error = error.mean().item()
        if not passed:
            first = error
        passed.append(values)
        last = passed[-(len(passed) // 4 + 1) :]
        mean = solver.plain(solver.legal(sum(last) / len(last)))
        say(f"step {step + 1}: {to_db(error)}, mean of the last {len(last)} solvers at {mean['timesteps']}")
        state |= {"solver": mean, "errors": [first, error], "iteration": state["iteration"] + 1}
        args.state.write_text(json.dumps(state))


def to_db(log_error: float) -> str:
    return f"{-10 / math.log(10) * log_error + 20 * math.log10(2):.2f} dB"


if __name__ == "__main__":
    main()
