"""Trains the text-to-image transformer; its text encoders stay as they are, as in FLUX, on a CPU or with --device cuda.

    python train_prompts.py --data DIR --run RUN --minutes 90        (or --until 00:40)

RUN holds what came before: tokenizer/ and tokenizer_2/ (prompt_tokenizers.py, which also wrote the captions' token ids),
text_encoders.pt (train_text_encoders.py), vae/ and latents.pt (encode_latents.py). Writes RUN/checkpoint.pt and sheets of samples; --resume continues with the
original start time, --stop-file ends the run at once with a final checkpoint. The learning rate follows the clock.

Ingredients
* flow matching (Lipman et al. 2023; SD3, Esser et al. 2024, https://arxiv.org/abs/2403.03206): x = (1 - t) image + t noise,
  velocity noise - image, squared error; times logit-normal, stratified over the batch;
* one of the picture's captions at random, the empty prompt instead in one of ten (classifier-free guidance);
* Muon (https://kellerjordan.github.io/posts/muon/) for the matrices inside the blocks, AdamW for the rest;
* power-function EMA (Karras et al. 2024, https://arxiv.org/abs/2312.02696).
"""

import argparse
import copy
import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from prompt_model import IMAGE_TOKENS, TextToImage, sample, transformer_config, unpack, use_plain_attention
from prompt_tokenizers import encode, load_tokenizers
from train import save_grid
from training_run import TrainingRun, add_run_arguments, saved_run

SHEET = [
    "a lorelei portrait, red hair, round glasses, blue background",
    "a lorelei portrait, long black hair, smiling, pink background",
    "lorelei avatar of a person with a blue mohawk and sunglasses, on a yellow background",
    "an adventurer avatar, curly brown hair, square glasses, green background",
    "an adventurer portrait, long blonde hair, dark skin, laughing, purple background",
    "a big smile character with a pink bun, cat ears, orange background",
    "a big smile avatar, green mohawk, brown skin, a toothy grin, white background",
    "a micah portrait, brown quiff, a beard, a red collared shirt, blue background",
    "a micah avatar, long purple hair, round glasses, surprised, yellow background",
    "a pixel art portrait, short black hair, square glasses, a blue t-shirt, green background",
    "pixel-art avatar with long red hair, sad, pink background",
    "a smiling person",
]


def draw_times(count: int, shift: float, device: torch.device) -> torch.Tensor:
    """Logit-normal times in 0..1, stratified over the batch; a shift above 1 moves them towards noise."""
    quantile = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    t = torch.sigmoid(math.sqrt(2) * torch.erfinv((2 * quantile - 1).clamp(-0.9999, 0.9999)))
    return shift * t / (1 + (shift - 1) * t)


def make_optimizers(transformer: torch.nn.Module, muon_lr: float, adam_lr: float):
    """Muon for the matrices of attention and feed-forward layers, AdamW for everything else."""
    hidden, rest = [], []
    for name, parameter in transformer.named_parameters():
        inside = any(part in name for part in (".attn.", ".ff.", ".ff_context.", ".proj_mlp.", ".proj_out."))
        (hidden if inside and parameter.ndim == 2 else rest).append(parameter)
    return [
        torch.optim.Muon(hidden, lr=muon_lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.99), weight_decay=0.0),
    ]


class Batches:
    """Endless shuffled passes over the latents, each with one of its captions drawn anew."""

    def __init__(self, latents, ids: dict, batch: int, seed: int):
        self.latents, self.ids, self.batch = latents, ids, batch
        self.generator = torch.Generator().manual_seed(seed)
        self.order, self.at = torch.empty(0, dtype=torch.long), 0

    def next(self):
        device = self.latents.device
        if self.at + self.batch > len(self.order):
            self.order, self.at = torch.randperm(len(self.latents), generator=self.generator).to(device), 0
        rows = self.order[self.at : self.at + self.batch]
        self.at += self.batch
        which = torch.randint(self.ids["t5"].shape[1], (self.batch,), device=device)
        return self.latents[rows].float(), self.ids["clip"][rows, which].long(), self.ids["t5"][rows, which].long()


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render-prompts.mjs")
    parser.add_argument("--run", type=Path, required=True, help="folder with tokenizers, vae and latents; takes the results")
    add_run_arguments(parser)
    parser.set_defaults(batch=64, muon_lr=0.02, adam_lr=1.5e-3, warmup=100, hold=0.4)
    parser.add_argument("--start-from", type=Path, metavar="CHECKPOINT", help="begin a new run with the transformer of another")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--double", type=int, default=2, help="double blocks")
    parser.add_argument("--single", type=int, default=6, help="single blocks")
    parser.add_argument("--caption-dropout", type=float, default=0.1)
    parser.add_argument("--time-shift", type=float, default=2.0, help="above 1: more times near noise, where the prompt decides")
    parser.add_argument("--sheet-every", type=float, default=1200, help="seconds between sheets of samples (0: none)")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = args.device
    if device.type == "cpu":
        use_plain_attention()
    latents = torch.load(args.run / "latents.pt", weights_only=True).to(device)
    ids = {name: part[: len(latents)].to(device) for name, part in load_file(args.data / "train_ids.safetensors").items()}
    latents = latents[: len(ids["t5"])]
    args.latent_channels = latents.shape[2] // 4
    tokenizers = load_tokenizers(args.run)
    empty_ids = tuple(part.to(device) for part in encode(tokenizers, [""]))
    sheet_ids = tuple(part.to(device) for part in encode(tokenizers, SHEET))
    vae = AutoencoderKL.from_pretrained(args.run / "vae").eval().requires_grad_(False).to(device)

    checkpoint = args.run / "checkpoint.pt"
    saved = saved_run(args, checkpoint)
    if saved:
        configs = saved["configs"]
    else:
        encoders = torch.load(args.run / "text_encoders.pt", weights_only=True, map_location=device)
        configs = encoders["configs"] | {"transformer": transformer_config(args, encoders["configs"])}
    model = TextToImage(configs).to(device)
    if not saved:
        model.load_state_dict(encoders["model"], strict=False)
    if args.start_from:
        earlier = torch.load(args.start_from, weights_only=True, map_location=device)["ema"]
        model.load_state_dict({name: part for name, part in earlier.items() if name.startswith("transformer.")}, strict=False)
    model.clip.requires_grad_(False)
    model.t5.requires_grad_(False)
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    optimizers = make_optimizers(model.transformer, args.muon_lr, args.adam_lr)
    batches = Batches(latents, ids, args.batch, args.seed)
    facts = {"configs": configs}
    run = TrainingRun(args, checkpoint, facts, model, ema, optimizers, saved, "transformer", batches.generator)

    def save_sheet():
        noise = torch.randn(len(SHEET), IMAGE_TOKENS, latents.shape[2], generator=torch.Generator().manual_seed(1)).to(device)
        x = sample(ema, sheet_ids, empty_ids, 16, 3.0, noise, torch.bfloat16)
        z = unpack(x) / vae.config.scaling_factor + vae.config.shift_factor
        with torch.no_grad():
            drawn = vae.decode(z).sample.float()
        save_grid(drawn.cpu(), 4, args.run / f"sheet_{run.step:06d}.png", zoom=1)

    if args.compile:
        model.transformer.compile_repeated_blocks(dynamic=False)
    sizes = {name: sum(p.numel() for p in getattr(model, name).parameters()) / 1e6 for name in ("transformer", "t5", "clip")}
    run.every(args.sheet_every, save_sheet)
    for _ in run.steps(f"M parameters {sizes}, {len(latents)} pictures"):
        x, clip_ids, t5_ids = batches.next()
        dropped = torch.rand(args.batch, 1, device=device) < args.caption_dropout
        clip_ids = torch.where(dropped, empty_ids[0], clip_ids)
        t5_ids = torch.where(dropped, empty_ids[1], t5_ids)
        t = draw_times(args.batch, args.time_shift, device)
        noise = torch.randn_like(x)
        mixed = torch.lerp(x, noise, t[:, None, None])
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                prompt = model.encode_text(clip_ids, t5_ids)
            predicted = model.velocity(mixed, t, *prompt).float()
        run.learn((predicted - (noise - x)).square().mean())


if __name__ == "__main__":
    main()
