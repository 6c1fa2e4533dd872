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
from datetime import datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from prompts_data import load_images, rendered
from train import save_grid, to_model_range
from training_run import TrainingRun, add_run_arguments, saved_run


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


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render-prompts.mjs")
    parser.add_argument("--out", type=Path, required=True)
    add_run_arguments(parser, power_average=False)
    parser.set_defaults(batch=8, muon_lr=0.03, adam_lr=3e-3, warmup=50, hold=0.5, checkpoint_every=120)
    parser.add_argument("--decoder-of", type=Path, metavar="VAE", help="train only the decoder of this diffusers folder")
    parser.add_argument("--channels", type=int, nargs=4, default=[16, 32, 64, 96])
    parser.add_argument("--latent-channels", type=int, default=16)
    parser.add_argument("--kl", type=float, default=3e-5, help="weight of the mean KL of a latent value")
    parser.add_argument("--half", type=float, default=0.25, help="weight of the loss at half the resolution")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
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
    optimizers = make_optimizers(model, args.muon_lr, args.adam_lr)
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    checkpoint = args.out / "autoencoder.pt"
    run = TrainingRun(args, checkpoint, {"config": config}, model, ema, optimizers, saved_run(args, checkpoint))
    run.decay = lambda step: min(0.99, step / (step + 10))

    def show():
        drawn = reconstruct(ema, heldout[:16])
        print(f"{datetime.now():%H:%M:%S} step {run.step} held-out PSNR {psnr(drawn, heldout[:16]):.2f} dB", flush=True)
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
    run.every(args.checkpoint_every, show)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    for _ in run.steps(f"{size:.2f} M parameters, {len(images)} images"):
        rows = torch.randint(len(images), (args.batch,), device=images.device)
        x = to_model_range(images[rows]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            loss, error = function(x)
        run.learn(loss, mse=error)
    if args.decoder_of:
        ema.save_pretrained(args.decoder_of)
    drawn = torch.cat([reconstruct(ema, part) for part in heldout.split(16)])
    print(f"held-out PSNR {psnr(drawn, heldout):.2f} dB")


if __name__ == "__main__":
    main()
