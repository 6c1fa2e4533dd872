"""Trains the autoencoder of the text-to-image model: diffusers' AutoencoderKL, 8x8 pixels to a latent pixel.

    python train_autoencoder.py --data DIR --out DIR --minutes 20          (or --until 23:10)

With --decoder-of VAE the encoder of a folder that encode_latents.py wrote stays as it is and only the decoder is trained on:
cached latents, and a transformer that learns them, remain valid. VAE itself is rewritten at the end.

Writes OUT/autoencoder.pt often (--resume continues from it) and OUT/reconstructions.png; ends early when the
file of --stop-file appears. With --device cuda everything runs on the device.

The loss is L1 and squares on pixels and on differences of neighbouring pixels (flat colours with sharp edges are all there is in these
pictures), L1 on mean colours (which group normalisation would rather forget), a very small KL, and the same L1 at half the resolution, decoded from latents averaged
over 2x2: latents that still mean something when shrunk are easier for a diffusion model (Skorokhodov et al.
2025, https://arxiv.org/abs/2502.14831). The optimisers are Muon for kernels and AdamW; the learning rates
follow the clock.
"""

import argparse
import copy
import os
import time
from datetime import datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from prompts_data import load_images, rendered
from train import save_grid, to_model_range


def autoencoder_config(channels: list[int], latent_channels: int) -> dict:
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": list(channels),
        "layers_per_block": 1,
        "act_fn": "silu",
        "latent_channels": latent_channels,
        "norm_num_groups": 8,
        "sample_size": 128,
        "force_upcast": False,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": True,
    }


class _GroupNorm(torch.autograd.Function):
    """Group normalisation of channels-last images; the backward pass needs two sums per channel."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps):
        b, c, h, w = x.shape
        y, mean, inverse = torch.native_group_norm(x, weight, bias, b, c, h * w, groups, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, inverse = ctx.saved_tensors
        (b, c, h, w), groups = x.shape, mean.shape[1]
        mean, inverse = (s.float().repeat_interleave(c // groups, dim=1) for s in (mean, inverse))
        x, grad = (part.permute(0, 2, 3, 1).reshape(b, h * w, c) for part in (x, grad))

        def over_groups(sums):
            means = sums.view(b, groups, -1).sum(dim=2) / (h * w * c // groups)
            return means.repeat_interleave(c // groups, dim=1)

        total = grad.sum(dim=1, dtype=torch.float32)
        # Sum of grad times the normalised x.
        product = inverse * ((grad * x).sum(dim=1, dtype=torch.float32) - mean * total)
        of_x = -inverse.square() * over_groups(weight * product)
        constant = -inverse * over_groups(weight * total) - of_x * mean
        dx = torch.addcmul(constant[:, None].to(grad.dtype), x, of_x[:, None].to(grad.dtype))
        dx.addcmul_(grad, (inverse * weight)[:, None].to(grad.dtype))
        return dx.view(b, h, w, c).permute(0, 3, 1, 2), product.sum(dim=0), total.sum(dim=0), None, None


class FastGroupNorm(torch.nn.GroupNorm):
    """PyTorch's own backward pass on a CPU takes half of a training step of the autoencoder; this one a tenth.

    Not for `--compile`, which fuses the ordinary one with its neighbours and is faster still.
    """

    def forward(self, x):
        if x.ndim != 4 or x.is_cuda:
            return super().forward(x)
        return _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)


def build(config: dict, compiled: bool = False) -> AutoencoderKL:
    model = AutoencoderKL(**config).to(memory_format=torch.channels_last)
    for module in model.modules():
        if type(module) is torch.nn.GroupNorm and not compiled:
            module.__class__ = FastGroupNorm
    return model


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Nearly the orthogonal factor of a matrix, by five Newton-Schulz steps (Muon's quintic)."""
    x = matrix / (matrix.norm() + 1e-7)
    flipped = x.shape[0] > x.shape[1]
    if flipped:
        x = x.T
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if flipped else x


class ConvMuon(torch.optim.Optimizer):
    """Muon (https://kellerjordan.github.io/posts/muon/) with kernels flattened to [out, in * height * width]."""

    def __init__(self, params, lr: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = torch.lerp(p.grad, buffer, group["momentum"]).flatten(1)
                rows, columns = update.shape
                update = orthogonalised(update) * max(1.0, rows / columns) ** 0.5
                p.sub_(group["lr"] * update.view(p.shape))


def make_optimizers(model: AutoencoderKL, muon_lr: float, adam_lr: float):
    """Muon for kernels and matrices, AdamW for norms, biases and the convolutions that meet pixels and latents."""
    hidden, rest = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        outer = any(part in name for part in ("conv_in", "conv_out"))
        (hidden if parameter.ndim >= 2 and not outer else rest).append(parameter)
    return [ConvMuon(hidden, muon_lr), torch.optim.AdamW(rest, adam_lr, betas=(0.9, 0.99), weight_decay=0.0)]


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def picture_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """L1 of pixels, of differences between neighbours, and, twice, of the mean colours of 8x8 pixels; and squares, for which
    a thin line that is missing (glasses, earrings) counts more than much that is a little off."""
    coarse = F.l1_loss(F.avg_pool2d(a, 8), F.avg_pool2d(b, 8))
    squares = 4 * F.mse_loss(a, b) + 2 * sum(F.mse_loss(p, q) for p, q in zip(edges(a), edges(b)))
    return F.l1_loss(a, b) + sum(F.l1_loss(p, q) for p, q in zip(edges(a), edges(b))) + 2 * coarse + squares


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over images in [-1, 1], decibels, as from 8-bit values."""
    mse = ((a.clamp(-1, 1) - b) / 2).square().mean(dim=(1, 2, 3))
    return (-10 * mse.clamp(min=1e-10).log10()).mean().item()


@torch.no_grad()
def reconstruct(model: AutoencoderKL, x: torch.Tensor) -> torch.Tensor:
    return model.decode(model.encode(x).latent_dist.mode()).sample.float()


def end_time(args, start: float) -> float:
    """When a run is to end: so many minutes after its start, or the next time the clock shows HH:MM."""
    if not args.until:
        return start + 60 * args.minutes
    hour, minute = map(int, args.until.split(":"))
    end = datetime.now().replace(hour=hour, minute=minute, second=0).timestamp()
    return end if end > time.time() else end + 86400


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render-prompts.mjs")
    parser.add_argument("--out", type=Path, required=True)
    end = parser.add_mutually_exclusive_group(required=True)
    end.add_argument("--minutes", type=float)
    end.add_argument("--until", help="the next HH:MM")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--decoder-of", type=Path, metavar="VAE", help="train only the decoder of this diffusers folder")
    parser.add_argument("--stop-file", type=Path)
    parser.add_argument("--channels", type=int, nargs=4, default=[16, 32, 64, 96])
    parser.add_argument("--latent-channels", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--muon-lr", type=float, default=0.03)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--hold", type=float, default=0.5, help="share of the time at the full learning rate")
    parser.add_argument("--warmup", type=int, default=50, help="steps")
    parser.add_argument("--kl", type=float, default=3e-5, help="weight of the mean KL of a latent value")
    parser.add_argument("--half", type=float, default=0.25, help="weight of the loss at half the resolution")
    parser.add_argument("--checkpoint-every", type=float, default=120, help="seconds")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default="cpu")
    return parser.parse_args()


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = args.device
    images = load_images(args.data, "train")
    images = images[: rendered(images)]
    heldout = to_model_range(load_images(args.data, "heldout")[:64]).to(device)
    if device.type == "cuda":
        images = images.to(device)

    config = autoencoder_config(args.channels, args.latent_channels)
    if args.decoder_of:
        given = AutoencoderKL.from_pretrained(args.decoder_of)
        config = {name: given.config[name] for name in [*config, "shift_factor", "scaling_factor"]}
    model = build(config, args.compile).to(device)
    if args.decoder_of:
        model.load_state_dict(given.state_dict())
        model.encoder.requires_grad_(False)
    base_lrs = [args.muon_lr, args.adam_lr]
    optimizers = make_optimizers(model, *base_lrs)
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    step, start = 0, time.time()
    path = args.out / "autoencoder.pt"
    if args.resume:
        saved = torch.load(path, weights_only=True, map_location=device)
        model.load_state_dict(saved["model"])
        ema.load_state_dict(saved["ema"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        step, start = saved["step"], saved["start"]
    end = end_time(args, start)

    def save():
        state = {
            "config": config,
            "model": model.state_dict(),
            "ema": ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "step": step,
            "images": step * args.batch,
            "start": start,
            "minutes": (time.time() - start) / 60,
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, path)
        drawn = reconstruct(ema, heldout[:16])
        print(f"{datetime.now():%H:%M:%S} step {step} held-out PSNR {psnr(drawn, heldout[:16]):.2f} dB", flush=True)
        save_grid(torch.cat([heldout[:8], drawn[:8], heldout[8:16], drawn[8:16]]).cpu(), 8, args.out / "reconstructions.png", zoom=1)

    def loss_of(x):
        mean, logvar = model.encoder(x).chunk(2, dim=1)
        # The transformer's latents are not exact either: a frozen encoder's get noise of a twentieth of their spread.
        logvar = torch.full_like(mean, -6.0) if args.decoder_of else logvar.clamp(-20, 10)
        z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        drawn = model.decoder(z).float()
        kl = 0.5 * (mean.float().square() + logvar.float().exp() - 1 - logvar.float()).mean()
        half = model.decoder(F.avg_pool2d(z, 2)).float() if args.half else None
        loss = picture_loss(drawn, x) + args.kl * kl
        if args.half:
            loss = loss + args.half * F.l1_loss(half, F.avg_pool2d(x, 2))
        return loss, (drawn.detach() - x).square().mean()

    function = torch.compile(loss_of, dynamic=False) if args.compile else loss_of
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(images)} images, until {datetime.fromtimestamp(end):%H:%M:%S}", flush=True)
    saved_at = reported = time.time()
    sums = torch.zeros(2, device=device)
    while time.time() < end and not (args.stop_file and args.stop_file.exists()):
        progress = (time.time() - start) / (end - start)
        factor = min(1.0, (step + 1) / args.warmup, max(0.0, (1 - progress) / (1 - args.hold)))
        for optimizer, base in zip(optimizers, base_lrs):
            optimizer.param_groups[0]["lr"] = base * factor
        rows = torch.randint(len(images), (args.batch,), device=images.device)
        x = to_model_range(images[rows]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            loss, error = function(x)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        decay = min(0.99, step / (step + 10))
        torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
        sums += torch.stack([loss.detach(), error])
        if step % 50 == 0:
            now = time.time()
            mean_loss, mse = (sums / 50).tolist()
            print(f"{datetime.now():%H:%M:%S} step {step} loss {mean_loss:.4f} mse {mse:.5f} {50 * args.batch / (now - reported):.1f} images/s", flush=True)
            sums.zero_()
            reported = now
        if time.time() - saved_at > args.checkpoint_every:
            save()
            saved_at = time.time()
    save()
    if args.decoder_of:
        ema.save_pretrained(args.decoder_of)
    drawn = torch.cat([reconstruct(ema, part) for part in heldout.split(16)])
    print(f"done: {step} steps, held-out PSNR {psnr(drawn, heldout):.2f} dB")


if __name__ == "__main__":
    main()
