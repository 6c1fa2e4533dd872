"""Trains the DiT on rendered avatars within a fixed wall-clock time, on a CPU or, with --device cuda, on a GPU.

    python train.py --data DIR --out DIR --minutes 95        (or --until 11:35)

The learning rate and the phases follow elapsed wall-clock time, so the run ends when it is told to,
whatever else the machine does meanwhile. --resume continues from OUT/checkpoint.pt with the original
start time. Creating the file given by --stop-file ends the run at once with a final checkpoint.

Ingredients
* noise prediction with the min-SNR-5 weight (Hang et al. 2023, https://arxiv.org/abs/2303.09556),
  min(SNR, 5) / SNR in terms of the noise, times SNR^-1/2 (at most 50) where SNR < 1: without it the
  noisiest steps are fitted too coarsely and overall colours drift;
* half of the timesteps uniform, half logit-normal around t = 330, both stratified over the batch;
* Muon (https://kellerjordan.github.io/posts/muon/) for the matrices inside the blocks, AdamW for the rest;
* token routing (see model.py), switched off for the last part of the run;
* power-function EMA (Karras et al. 2024, https://arxiv.org/abs/2312.02696).
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from export import load_exported
from model import TRAIN_STEPS, DiT, DiTConfig, alphas_cumprod, sample_ddim
from training_run import TrainingRun, add_run_arguments, saved_run


def load_split(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 [N, 64, 64, 3] (memory-mapped) and labels int64 [N], as render.mjs wrote them."""
    size = json.loads((folder / "index.json").read_text())["size"]
    images = np.memmap(folder / f"{split}_images.bin", np.uint8, mode="c").reshape(-1, size, size, 3)
    labels = np.fromfile(folder / f"{split}_labels.bin", np.uint8)
    return torch.from_numpy(images), torch.from_numpy(labels).long()


def to_model_range(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def save_grid(images: torch.Tensor, columns: int, path: Path, zoom: int = 2) -> None:
    """Writes images in [-1, 1] as one PNG, row by row."""
    b, c, h, w = images.shape
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().view(-1, columns, c, h, w)
    grid = pixels.permute(0, 3, 1, 4, 2).reshape(b // columns * h, columns * w, c)
    picture = Image.fromarray(grid.numpy())
    picture.resize((picture.width * zoom, picture.height * zoom), Image.NEAREST).save(path)


class Batches:
    """Endless shuffled passes over the training images; images of class c come shares[c] times (default 1) in each."""

    def __init__(self, images, labels, batch: int, seed: int, shares: list[int] | None = None):
        self.images, self.labels, self.batch = images, labels, batch
        self.pool = torch.arange(len(images))
        if shares:
            self.pool = self.pool.repeat_interleave(torch.tensor(shares)[labels.cpu()])
        self.generator = torch.Generator().manual_seed(seed)
        self.order, self.at = torch.empty(0, dtype=torch.long), 0

    def next(self):
        if self.at + self.batch > len(self.order):
            order = self.pool[torch.randperm(len(self.pool), generator=self.generator)]
            self.order, self.at = order.to(self.images.device), 0
        rows = self.order[self.at : self.at + self.batch]
        self.at += self.batch
        return to_model_range(self.images[rows]), self.labels[rows]


def parse_shares(names: list[str], given: list[str]) -> list[int]:
    """["adventurer=2"] -> how often the images of every class come in a pass; 1 where nothing is given."""
    shares = dict.fromkeys(names, 1)
    for part in given:
        name, _, count = part.partition("=")
        if name not in shares or not count.isdecimal() or int(count) < 1:
            raise SystemExit(f"--share {part}: expected CLASS=TIMES with one of {', '.join(names)}")
        shares[name] = int(count)
    return list(shares.values())


def draw_timesteps(count: int, device: torch.device) -> torch.Tensor:
    """Half uniform, half logit-normal(-0.7, 1.1), each stratified over the batch."""

    def stratified(count: int) -> torch.Tensor:
        return (torch.arange(count, device=device) + torch.rand(1, device=device)) / count

    uniform, quantile = stratified(count - count // 2), stratified(count // 2)
    normal = math.sqrt(2) * torch.erfinv((2 * quantile - 1).clamp(-0.9999, 0.9999))
    both = torch.cat([uniform, torch.sigmoid(1.1 * normal - 0.7)])
    return (both * TRAIN_STEPS).long().clamp(0, TRAIN_STEPS - 1)


def make_optimizers(model: DiT, muon_lr: float, adam_lr: float):
    """Muon for the matrices in the blocks (modulations excepted), AdamW for everything else."""
    hidden, rest = [], []
    for name, parameter in model.named_parameters():
        inside = name.startswith("blocks.") and parameter.ndim == 2 and ".ada." not in name
        (hidden if inside else rest).append(parameter)
    return [
        torch.optim.Muon(hidden, lr=muon_lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render.mjs")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, log and sample grids")
    add_run_arguments(parser)
    parser.set_defaults(batch=32, muon_lr=0.02, adam_lr=1e-3, warmup=200, hold=0.4, report_every=100)
    parser.add_argument("--start-from", type=Path, help="start a new run from the weights of an exported model folder")
    parser.add_argument("--share", nargs="*", default=[], metavar="CLASS=TIMES", help="show a class more often")
    parser.add_argument("--width", type=int, default=DiTConfig.width)
    parser.add_argument("--heads", type=int, default=DiTConfig.heads)
    parser.add_argument("--depth", type=int, default=DiTConfig.depth)
    parser.add_argument("--routing-until", type=float, default=0.8, help="share of the time with token routing")
    parser.add_argument("--label-dropout", type=float, default=0.1)
    parser.add_argument("--grid-every", type=float, default=480, help="seconds between sample grids (0: none)")
    return parser.parse_args()


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    device = args.device
    images, labels = (part if device.type == "cpu" else part.to(device) for part in load_split(args.data, "train"))
    names = json.loads((args.data / "index.json").read_text())["classes"]
    config = DiTConfig(width=args.width, heads=args.heads, depth=args.depth, classes=len(names))
    model, ema = DiT(config), DiT(config)
    if args.start_from:
        model.load_state_dict(load_exported(args.start_from).state_dict())
    model, ema = model.to(device), ema.to(device)
    ema.load_state_dict(model.state_dict())
    ema.requires_grad_(False)
    optimizers = make_optimizers(model, args.muon_lr, args.adam_lr)
    batches = Batches(images, labels, args.batch, args.seed, parse_shares(names, args.share))
    checkpoint = args.out / "checkpoint.pt"
    facts = {"config": config.to_dict()}
    run = TrainingRun(args, checkpoint, facts, model, ema, optimizers, saved_run(args, checkpoint), generator=batches.generator)

    def save_samples():
        rows = 3
        noise = torch.randn(rows * config.classes, config.channels, config.size, config.size, generator=torch.Generator().manual_seed(1))
        drawn_labels = torch.arange(config.classes).repeat(rows)
        drawn = sample_ddim(ema, drawn_labels.to(device), 25, 2.0, noise.to(device), torch.bfloat16)
        save_grid(drawn.cpu(), config.classes, args.out / f"grid_{run.step:06d}.png")

    power = alphas_cumprod().to(device)
    snr = power / (1 - power)
    weights = snr.clamp(max=5) / snr * snr.clamp(max=1).rsqrt().clamp(max=50)
    tokens = (config.size // config.patch) ** 2
    compiled = torch.compile(model, dynamic=False)
    total = sum(p.numel() for p in model.parameters())
    run.every(args.grid_every, save_samples)
    for progress in run.steps(f"{total / 1e6:.2f} M parameters, {len(images)} images"):
        x, y = batches.next()
        y = torch.where(torch.rand(len(y), device=device) < args.label_dropout, config.classes, y)
        t = draw_timesteps(len(x), device)
        noise = torch.randn_like(x)
        a = power[t].view(-1, 1, 1, 1)
        routed = None
        if progress < args.routing_until:
            routed = torch.rand(len(x), tokens, device=device).argsort(dim=1)[:, : tokens // 2]
        with torch.autocast(device.type, torch.bfloat16):
            predicted = compiled(a.sqrt() * x + (1 - a).sqrt() * noise, t, y, routed).float()
        errors = (predicted - noise).square().mean(dim=(1, 2, 3))
        run.learn((weights[t] * errors).mean(), mse=errors.mean())


if __name__ == "__main__":
    main()
