"""Writes a checkpoint of train_unet.py as a diffusers StableDiffusionPipeline folder and proves that diffusers draws the same.

    python export_unet.py --run RUN --unet OUT/checkpoint.pt [--out ../models/avatars-sd]

RUN is the folder of the text-to-image model, whose autoencoder, text encoder and tokenizer go along. The EMA weights go out in
fp16. The folder appears under its name only when complete and only if StableDiffusionPipeline, loaded from it, reproduces the
training code's sampler and decodes as the autoencoder does.
"""

import argparse
import json
import shutil
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from export_prompts import EXAMPLES, MODELS, diffusers_config, replace_folder, text_config, write_json, write_weights
from prompt_model import TextEncoders
from prompt_tokenizers import encode, load_tokenizers
from train_unet import sample
from unet_model import SCHEDULER, TOKENS, build

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": diffusers.__version__,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def rounded(state: dict) -> dict:
    """Weights in the precision of the exported files."""
    return {name: t.half().float() if t.is_floating_point() else t for name, t in state.items()}


def with_quant_convolutions(vae: AutoencoderKL) -> AutoencoderKL:
    """The same autoencoder as Stable Diffusion has it: what the config calls a shift becomes the bias of 1x1 convolutions."""
    shift, channels = vae.config.shift_factor, vae.config.latent_channels
    config = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    result = AutoencoderKL(**config | {"shift_factor": None, "use_quant_conv": True, "use_post_quant_conv": True})
    state = vae.state_dict()
    for name, count, bias in (("quant_conv", 2 * channels, -shift), ("post_quant_conv", channels, shift)):
        state[f"{name}.weight"] = torch.eye(count)[:, :, None, None]
        state[f"{name}.bias"] = torch.zeros(count)
        state[f"{name}.bias"][:channels] = bias
    result.load_state_dict(state)
    return result.eval().requires_grad_(False)


def write_folder(unet, encoders: TextEncoders, vae: AutoencoderKL, run: Path, folder: Path) -> None:
    write_json(folder / "model_index.json", MODEL_INDEX)
    write_json(folder / "scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler", "_diffusers_version": diffusers.__version__} | SCHEDULER)
    write_json(folder / "unet/config.json", diffusers_config(unet))
    write_weights(folder / "unet/diffusion_pytorch_model.safetensors", unet.state_dict())
    write_json(folder / "vae/config.json", diffusers_config(vae))
    write_weights(folder / "vae/diffusion_pytorch_model.safetensors", vae.state_dict())
    # As many positions as the U-Net was trained to read; the prefix is the one of Stable Diffusion's own files.
    clip = {name if name.startswith("text_model.") else f"text_model.{name}": t for name, t in encoders.clip.state_dict().items()}
    positions = "text_model.embeddings.position_embedding.weight"
    clip[positions] = clip[positions][:TOKENS]
    clip.pop("text_model.embeddings.position_ids", None)
    write_json(folder / "text_encoder/config.json", text_config(encoders.clip, "CLIPTextModel") | {"max_position_embeddings": TOKENS})
    write_weights(folder / "text_encoder/model.safetensors", clip)
    shutil.copytree(run / "tokenizer", folder / "tokenizer")
    tokenizer_config = json.loads((folder / "tokenizer/tokenizer_config.json").read_text())
    write_json(folder / "tokenizer/tokenizer_config.json", tokenizer_config | {"model_max_length": TOKENS})
    write_json(
        folder / "defaults.json",
        {
            "numInferenceSteps": 50,
            "guidanceScale": 3,
            "height": 128,
            "width": 128,
            "examples": EXAMPLES,
        },
    )


@torch.no_grad()
def check(unet, encoders: TextEncoders, vae: AutoencoderKL, run: Path, folder: Path) -> None:
    """StableDiffusionPipeline from the folder against our own sampler, same noise, with and without guidance."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    prompts = ["a lorelei portrait, red hair, round glasses, blue background", "Pixel-art avatar, sad"]
    text, empty = (encoders.clip(encode(load_tokenizers(run), t)[0], return_dict=True).last_hidden_state for t in (prompts, [""]))
    noise = torch.randn(len(prompts), unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    for scale in (1.0, 3.0):
        ours = sample(unet, text, empty, 4, scale, noise)
        arguments = dict(prompt=prompts, guidance_scale=scale, latents=noise, num_inference_steps=4, height=128, width=128)
        theirs = pipeline(**arguments, output_type="latent").images
        error = (ours - theirs).abs().max().item()
        print(f"largest difference to StableDiffusionPipeline, scale {scale}: {error:.2e} (latents up to {theirs.abs().max():.2f})")
        if error > 1e-3:
            raise SystemExit("the exported model does not compute what the training model computes")
    drawn = pipeline(**arguments, output_type="pt").images
    own = vae.decode(theirs / vae.config.scaling_factor + vae.config.shift_factor).sample
    if ((own / 2 + 0.5).clamp(0, 1) - drawn).abs().max() > 2e-3:
        raise SystemExit("the exported autoencoder does not decode as ours does")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the text-to-image model")
    parser.add_argument("--unet", type=Path, required=True, help="checkpoint of train_unet.py")
    parser.add_argument("--out", type=Path, default=MODELS / "avatars-sd")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    saved = torch.load(args.unet, weights_only=True, map_location="cpu")
    unet = build(saved["config"]).eval().requires_grad_(False)
    unet.load_state_dict(rounded(saved["ema"]))
    saved_text = torch.load(args.run / "text_encoders.pt", weights_only=True, map_location="cpu")
    encoders = TextEncoders(saved_text["configs"]).eval().requires_grad_(False)
    encoders.load_state_dict(rounded(saved_text["model"]))
    vae = AutoencoderKL.from_pretrained(args.run / "vae").eval().requires_grad_(False)
    vae.load_state_dict(rounded(vae.state_dict()))
    print(f"{args.unet}: {({key: saved[key] for key in ('step', 'samples', 'minutes', 'cpuSeconds')})}")

    folder = args.out.with_name(f".{args.out.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(unet, encoders, with_quant_convolutions(vae), args.run, folder)
    check(unet, encoders, vae, args.run, folder)
    replace_folder(folder, args.out)
    sizes = {path.relative_to(args.out): path.stat().st_size for path in sorted(args.out.rglob("*.safetensors"))}
    for path, size in sizes.items():
        print(f"{path}: {size} bytes")
    print(f"{sum(sizes.values()) / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
