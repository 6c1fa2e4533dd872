"""Encodes the pictures once, so that the transformer trains on latents.

    python encode_latents.py --data DIR --autoencoder RUN/autoencoder.pt --out RUN [--rows 40000]
    python encode_latents.py --data DIR --autoencoder RUN/vae --out RUN     # more rows of the same latents

First every latent channel is brought to the same variance, which changes no picture: the encoder's last
convolution is divided by the channels' standard deviations and the decoder's first multiplied. One shift and one scale,
as AutoencoderKL's config has them, then give latents of mean 0 and variance 1.

Writes OUT/vae (a diffusers folder) and OUT/latents.pt (float16 [N, 64, 4 C], packed as FLUX does, scaled).
"""

import argparse
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from prompt_model import pack
from prompts_data import load_images, rendered
from train import to_model_range
from train_autoencoder import build, psnr


def load_autoencoder(path: Path) -> AutoencoderKL:
    """The EMA weights of a checkpoint of train_autoencoder.py, or a `vae` folder."""
    if path.is_dir():
        return AutoencoderKL.from_pretrained(path).eval().requires_grad_(False)
    saved = torch.load(path, weights_only=True, map_location="cpu")
    model = build(saved["config"]).eval().requires_grad_(False)
    model.load_state_dict(saved["ema"])
    print(f"{path}: step {saved['step']}, {saved['samples']} images seen, {saved['minutes']:.1f} minutes")
    return model


@torch.no_grad()
def encode(model: AutoencoderKL, images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Means of the latents of uint8 images, unscaled."""
    x = to_model_range(images.to(device)).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16):
        return model.encoder(x).chunk(2, dim=1)[0].float()


@torch.no_grad()
def whiten(model: AutoencoderKL, latents: torch.Tensor) -> None:
    """Equal variance for all channels of `latents` [N, C, h, w], and the config's shift and scale."""
    spread = latents.std(dim=(0, 2, 3))
    channels = len(spread)
    model.encoder.conv_out.weight[:channels] /= spread[:, None, None, None]
    model.encoder.conv_out.bias[:channels] /= spread
    model.decoder.conv_in.weight *= spread[None, :, None, None]
    white = latents / spread[:, None, None]
    shift, scale = white.mean().item(), 1 / white.std().item()
    model.register_to_config(shift_factor=round(shift, 4), scaling_factor=round(scale, 4))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="encode the first rows only (default: all that are rendered)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model = load_autoencoder(args.autoencoder).to(args.device)
    images = load_images(args.data, "train")
    images = images[: min(args.rows or len(images), rendered(images))]
    parts = []
    if args.autoencoder.is_dir():
        parts.append(torch.load(args.out / "latents.pt", weights_only=True)[: len(images)])
    else:
        whiten(model, torch.cat([encode(model, part, args.device) for part in images[:1024].split(args.batch)]))
        model.cpu().save_pretrained(args.out / "vae")
        model.to(args.device)
    shift, scale = model.config.shift_factor, model.config.scaling_factor

    done = sum(map(len, parts))
    start = time.time()
    for at, part in enumerate(images[done:].split(args.batch)):
        parts.append(pack((encode(model, part, args.device) - shift) * scale).half().cpu())
        if at % 100 == 99:
            print(f"{done + (at + 1) * args.batch}/{len(images)} images, {time.time() - start:.0f} s", flush=True)
    latents = torch.cat(parts)
    temporary = args.out / "latents.tmp"
    torch.save(latents, temporary)
    temporary.replace(args.out / "latents.pt")
    print(f"{tuple(latents.shape)}: mean {latents.float().mean():.3f}, std {latents.float().std():.3f}")

    x = to_model_range(load_images(args.data, "heldout")[:64])
    drawn = torch.cat([model.decode(encode(model, part, args.device)).sample.float().cpu() for part in load_images(args.data, "heldout")[:64].split(16)])
    print(f"held-out PSNR {psnr(drawn, x):.2f} dB")


if __name__ == "__main__":
    main()
