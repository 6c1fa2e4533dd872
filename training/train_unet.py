"""Trains the small Stable Diffusion's U-Net, on latents and with a text encoder that are there, on a GPU or a CPU, by wall-clock time.

    python train_unet.py --data DIR --run RUN --out OUT --minutes 90          (or --until 23:10)

RUN is a folder of the text-to-image model: latents.pt, text_encoders.pt, tokenizer/. Writes OUT/checkpoint.pt every few minutes
(--resume continues from it) and OUT/sheet_*.png; ends early when the file of --stop-file appears.

* v-prediction, squared error; timesteps stratified over the batch;
* one of the picture's captions at random, the empty prompt instead in one of ten (classifier-free guidance);
* Muon for kernels and matrices, AdamW for the rest; power-function EMA.
"""

import argparse
import copy
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.torch import load_file

from prompt_model import TextEncoders, unpack
from prompt_tokenizers import encode, load_tokenizers
from train import save_grid
from train_autoencoder import ConvMuon
from train_prompts import SHEET, Batches
from training_run import TrainingRun, add_run_arguments, saved_run
from unet_model import SCHEDULER, build, signal_and_noise, unet_config


def make_optimizers(model: torch.nn.Module, muon_lr: float, adam_lr: float):
    """Muon for kernels and matrices, AdamW for norms, biases, the time embedding and the convolutions that meet latents."""
    hidden, rest = [], []
    for name, parameter in model.named_parameters():
        outer = any(part in name for part in ("conv_in", "conv_out", "time_emb"))
        (hidden if parameter.ndim >= 2 and not outer else rest).append(parameter)
    return [ConvMuon(hidden, muon_lr), torch.optim.AdamW(rest, adam_lr, betas=(0.9, 0.99), weight_decay=0.0)]


@torch.no_grad()
def sample(model, text, empty, steps: int, guidance: float, x: torch.Tensor, dtype=torch.float32) -> torch.Tensor:
    """DDIM with classifier-free guidance from noise `x`; text [B, T, D], empty [1, T, D]."""
    scheduler = DDIMScheduler.from_config(SCHEDULER)
    scheduler.set_timesteps(steps)
    both = torch.cat([empty.expand_as(text), text])
    for t in scheduler.timesteps:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            untold, told = model(torch.cat([x, x]), t, both).sample.float().chunk(2)
        x = scheduler.step(untold + guidance * (told - untold), t, x).prev_sample
    return x


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render-prompts.mjs")
    parser.add_argument("--run", type=Path, required=True, help="folder with latents, vae, text encoders and tokenizers")
    parser.add_argument("--out", type=Path, required=True)
    add_run_arguments(parser)
    parser.set_defaults(batch=64, muon_lr=0.02, adam_lr=1.5e-3, warmup=100, hold=0.5)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 80, 104])
    parser.add_argument("--heads", type=int, nargs="+", default=[1, 2, 2])
    parser.add_argument("--layers", type=int, default=2, help="layers of a block")
    parser.add_argument("--caption-dropout", type=float, default=0.1)
    parser.add_argument("--sheet-every", type=float, default=1200, help="seconds between sheets of samples (0: none)")
    return parser.parse_args()


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = args.device
    latents = torch.load(args.run / "latents.pt", weights_only=True).to(device)
    ids = {name: part[: len(latents)].to(device) for name, part in load_file(args.data / "train_ids.safetensors").items()}
    latents = latents[: len(ids["clip"])]
    saved_text = torch.load(args.run / "text_encoders.pt", weights_only=True, map_location=device)
    encoders = TextEncoders(saved_text["configs"]).to(device).eval().requires_grad_(False)
    encoders.load_state_dict(saved_text["model"])
    vae = AutoencoderKL.from_pretrained(args.run / "vae").eval().requires_grad_(False).to(device)
    tokenizers = load_tokenizers(args.run)
    empty_ids, sheet_ids = (encode(tokenizers, texts)[0].to(device) for texts in ([""], SHEET))

    def read(clip_ids):
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            return encoders.clip(clip_ids, return_dict=True).last_hidden_state.float()

    checkpoint = args.out / "checkpoint.pt"
    saved = saved_run(args, checkpoint)
    text_width = saved_text["configs"]["clip"]["hidden_size"]
    config = saved["config"] if saved else unet_config(args.channels, args.layers, args.heads, latents.shape[2] // 4, text_width)
    model = build(config).to(device)
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    optimizers = make_optimizers(model, args.muon_lr, args.adam_lr)
    batches = Batches(latents, ids, args.batch, args.seed)
    facts = {"config": config}
    run = TrainingRun(args, checkpoint, facts, model, ema, optimizers, saved, generator=batches.generator)

    def save_sheet():
        noise = torch.randn(len(SHEET), config["in_channels"], 16, 16, generator=torch.Generator().manual_seed(1)).to(device)
        x = sample(ema, read(sheet_ids), read(empty_ids), 16, 3.0, noise, torch.bfloat16)
        with torch.no_grad():
            drawn = vae.decode(x / vae.config.scaling_factor + vae.config.shift_factor).sample.float()
        save_grid(drawn.cpu(), 4, args.out / f"sheet_{run.step:06d}.png", zoom=1)

    size = sum(p.numel() for p in model.parameters()) / 1e6
    signal, noise_level = (part.to(device) for part in signal_and_noise())
    run.every(args.sheet_every, save_sheet)
    for _ in run.steps(f"{size:.2f} M parameters, {len(latents)} pictures"):
        packed, clip_ids, _ = batches.next()
        x = unpack(packed).contiguous(memory_format=torch.channels_last)
        dropped = torch.rand(args.batch, 1, device=device) < args.caption_dropout
        text = read(torch.where(dropped, empty_ids, clip_ids))
        t = ((torch.arange(args.batch, device=device) + torch.rand(args.batch, device=device)) / args.batch * 1000).long()
        noise = torch.randn_like(x)
        a, s = signal[t][:, None, None, None], noise_level[t][:, None, None, None]
        with torch.autocast(device.type, torch.bfloat16):
            predicted = model(a * x + s * noise, t, text).sample.float()
        run.learn((predicted - (a * noise - s * x)).square().mean())


if __name__ == "__main__":
    main()
