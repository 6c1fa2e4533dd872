"""Writes a checkpoint of train_prompts.py as a diffusers FluxPipeline folder and proves that diffusers draws the same.

    python export_prompts.py --run RUN [--out ../models/avatars-flux]

The EMA weights go out in fp16 in the layout of FLUX.1's own repository. The folder appears under its name only when complete
and only if FluxPipeline, loaded from it, reproduces the latents of the training code's sampler and decodes them.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, FluxPipeline
from safetensors.torch import save_file

from prompt_model import IMAGE_TOKENS, TextToImage, sample, unpack
from prompt_tokenizers import TOKENS, encode, load_tokenizers

MODELS = Path(__file__).parent.parent / "models"
EXAMPLES = [
    "a lorelei portrait, red hair, round glasses, blue background",
    "an adventurer avatar, curly brown hair, square glasses, green background",
    "a big smile character with a pink bun, cat ears, orange background",
    "a micah portrait, brown quiff, a beard, a red collared shirt, blue background",
    "pixel-art avatar with long red hair, sad, pink background",
]


def load_ema(path: Path) -> tuple[TextToImage, dict]:
    """The EMA model of a checkpoint, rounded to fp16 (the precision of the exported files), and the facts beside it."""
    saved = torch.load(path, weights_only=True, map_location="cpu")
    model = TextToImage(saved["configs"]).eval().requires_grad_(False)
    model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in saved["ema"].items()})
    facts = {key: saved[key] for key in ("step", "samples", "minutes", "cpuSeconds")}
    print(f"{path}: {facts}")
    return model, facts


def load_pipeline(folder: Path) -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_weights(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {name: tensor.detach().half().contiguous().clone() for name, tensor in tensors.items()}
    save_file(halves, path, metadata={"format": "pt"})


def scheduler_config() -> dict:
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": diffusers.__version__,
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 4096,
        "max_shift": 1.15,
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": False,
    }


def model_index() -> dict:
    return {
        "_class_name": "FluxPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def defaults() -> dict:
    """What femo's requests go by that do not say: the size and length it was trained for, and what it was judged at."""
    return {
        "numInferenceSteps": 50,
        "trueCfgScale": 3,
        "negativePrompt": "",
        "height": 128,
        "width": 128,
        "maxSequenceLength": TOKENS,
        "examples": EXAMPLES,
    }


def text_config(model, architecture: str) -> dict:
    """The configuration as transformers writes it, with the precision of the file."""
    config = json.loads(model.config.to_json_string())
    return config | {"architectures": [architecture], "dtype": "float16", "torch_dtype": "float16"}


def diffusers_config(model) -> dict:
    return {"_class_name": type(model).__name__, "_diffusers_version": diffusers.__version__} | {
        name: value for name, value in model.config.items() if not name.startswith("_")
    }


def write_folder(model: TextToImage, run: Path, folder: Path) -> None:
    vae = AutoencoderKL.from_pretrained(run / "vae")
    write_json(folder / "model_index.json", model_index())
    write_json(folder / "defaults.json", defaults())
    write_json(folder / "scheduler/scheduler_config.json", scheduler_config())
    write_json(folder / "transformer/config.json", diffusers_config(model.transformer))
    write_weights(folder / "transformer/diffusion_pytorch_model.safetensors", model.transformer.state_dict())
    write_json(folder / "vae/config.json", diffusers_config(vae))
    write_weights(folder / "vae/diffusion_pytorch_model.safetensors", vae.state_dict())
    # FLUX.1's files have the prefix that older versions of transformers gave CLIP's tensors; newer ones read both.
    clip = {name if name.startswith("text_model.") else f"text_model.{name}": t for name, t in model.clip.state_dict().items()}
    write_json(folder / "text_encoder/config.json", text_config(model.clip, "CLIPTextModel"))
    write_weights(folder / "text_encoder/model.safetensors", clip)
    t5 = {name: t for name, t in model.t5.state_dict().items() if name != "encoder.embed_tokens.weight"}
    write_json(folder / "text_encoder_2/config.json", text_config(model.t5, "T5EncoderModel"))
    write_weights(folder / "text_encoder_2/model.safetensors", t5)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(run / name, folder / name)


@torch.no_grad()
def check(model: TextToImage, folder: Path) -> None:
    """FluxPipeline from the folder against our own sampler, same noise, with and without true CFG."""
    pipeline = load_pipeline(folder)
    tokenizers = load_tokenizers(folder)
    prompts = ["a lorelei portrait, red hair, round glasses, blue background", "Pixel-art avatar, sad"]
    width = model.transformer.config.in_channels
    noise = torch.randn(len(prompts), IMAGE_TOKENS, width, generator=torch.Generator().manual_seed(0))
    for scale in (1.0, 3.0):
        ours = sample(model, encode(tokenizers, prompts), encode(tokenizers, [""]), 4, scale, noise)
        arguments = dict(
            prompt=prompts,
            negative_prompt=[""] * len(prompts),
            true_cfg_scale=scale,
            latents=noise,
            num_inference_steps=4,
            height=128,
            width=128,
            max_sequence_length=TOKENS,
        )
        theirs = pipeline(**arguments, output_type="latent").images
        error = (ours - theirs).abs().max().item()
        print(f"largest difference to FluxPipeline, scale {scale}: {error:.2e} (latents up to {theirs.abs().max():.2f})")
        if error > 1e-3:
            raise SystemExit("the exported model does not compute what the training model computes")
    drawn = pipeline(**arguments, output_type="np").images
    config = pipeline.vae.config
    own = pipeline.vae.decode(unpack(theirs) / config.scaling_factor + config.shift_factor).sample
    own = (own / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    if abs(own - drawn).max() > 1e-4:
        raise SystemExit("the exported autoencoder does not decode as ours does")


def replace_folder(source: Path, target: Path) -> None:
    """Puts `source` in the place of `target`; what else `target` holds (a card, samples) stays."""
    if not target.exists():
        os.replace(source, target)
        return
    for name in [path.name for path in source.iterdir()]:
        old = target / f".{name}.old"
        if (target / name).exists():
            os.replace(target / name, old)
        os.replace(source / name, target / name)
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    source.rmdir()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of train_prompts.py")
    parser.add_argument("--out", type=Path, default=MODELS / "avatars-flux")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model, _ = load_ema(args.run / "checkpoint.pt")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    folder = args.out.with_name(f".{args.out.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(model, args.run, folder)
    check(model, folder)
    replace_folder(folder, args.out)
    total = 0
    for path in sorted(args.out.rglob("*.safetensors")):
        total += path.stat().st_size
        print(f"{path.relative_to(args.out)}: {path.stat().st_size} bytes")
    print(f"{total / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
