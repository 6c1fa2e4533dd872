"""Judges an exported text-to-image model on descriptions of held-out pictures, drawn by diffusers.

    python evaluate_prompts.py --data DIR [--model ../models/avatars-sd] [--images 1000]

The prompts tell everything of held-out pictures. The classifier of models/avatars-flux-classifier then names what was
drawn: accuracy per attribute, beside its accuracy on the held-out pictures themselves; and Frechet distances in its features, which mean nothing beside published FIDs. Writes evaluation.json,
samples.png (the first pictures, uncurated, with prompts.txt) and other-words.png (prompts in words of our own).
"""

import argparse
import json
import re
import time
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from evaluate import distances
from prompts_classifier import accuracies, load_classifier, run
from prompts_data import load_attributes, load_images, load_index, rendered
from train import save_grid

MODELS = Path(__file__).parent.parent / "models"

OTHER_WORDS = [
    "lorelei portrait of a girl with ginger curls, round spectacles and a big grin, sky blue behind her",
    "draw me a bearded guy with black hair and shades, lorelei, pink backdrop please",
    "an old lady, grey bun, glasses, lorelei style, lavender",
    "punk with a green mohawk, pixel art",
    "retro 8-bit hero, red hair, blue shirt, yellow backdrop",
    "micah, bald man with a beard wearing a black sweater, orange background",
    "blonde woman with long hair laughing, micah style",
    "adventurer with purple pigtails who looks sad",
    "a girl with cat ears and pink hair, big smile style, white background",
    "angry kid with a brown bowl cut, big smile",
    "blue hair",
    "somebody with dark skin, golden long hair and sunglasses on green",
]


def request(folder: Path, args) -> dict:
    """Arguments of the diffusers pipeline: what the model's defaults.json says, and what the command line says."""
    defaults = json.loads((folder / "defaults.json").read_text())
    defaults.pop("examples")
    named = {re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in defaults.items()}
    named["num_inference_steps"] = args.steps
    if args.guidance is not None:
        named["true_cfg_scale" if "true_cfg_scale" in named else "guidance_scale"] = args.guidance
    return named


@torch.no_grad()
def draw(pipeline, prompts: list[str], arguments: dict, args, seed: int) -> torch.Tensor:
    """Images in [0, 1] for the prompts, in batches; stops early when the time is over."""
    generator, parts, start = torch.Generator().manual_seed(seed), [], time.time()
    for at in range(0, len(prompts), args.batch):
        texts = prompts[at : at + args.batch]
        given = arguments | {"negative_prompt": [arguments.get("negative_prompt", "")] * len(texts)}
        with torch.autocast(args.device.type, torch.bfloat16):
            parts.append(pipeline(texts, generator=generator, output_type="pt", **given).images.float().cpu())
        if time.time() - start > 60 * args.minutes:
            break
    return torch.cat(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=MODELS / "avatars-flux")
    parser.add_argument("--classifier", type=Path, default=MODELS / "avatars-flux-classifier")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=60, help="stop sampling after this time, with fewer images")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--guidance", type=float, help="(true) CFG scale (default: the model's)")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline = DiffusionPipeline.from_pretrained(args.model, torch_dtype=torch.float32, local_files_only=True).to(args.device)
    pipeline.set_progress_bar_config(disable=True)
    arguments, classifier = request(args.model, args), load_classifier(args.classifier)
    index = load_index(args.data)
    names = list(index["attributes"])

    other = draw(pipeline, OTHER_WORDS, arguments, args, seed=1)
    save_grid(2 * other - 1, 4, args.model / "other-words.png", zoom=1)
    prompts = (args.data / "heldout_prompts.txt").read_text().splitlines()[: args.images]
    start = time.time()
    images = draw(pipeline, prompts, arguments, args, seed=0)
    seconds, count = time.time() - start, len(images)
    prompts = prompts[:count]
    save_grid(2 * images[:24] - 1, 6, args.model / "samples.png", zoom=1)
    (args.model / "prompts.txt").write_text("".join(f"{i + 1}. {text}\n" for i, text in enumerate(prompts[:24])))

    drawn = (images * 255).round().byte().permute(0, 2, 3, 1)
    drawn_classes, drawn_features = run(classifier, drawn)
    heldout, truth = load_images(args.data, "heldout"), load_attributes(args.data, "heldout")
    heldout_classes, heldout_features = run(classifier, heldout)
    train = load_images(args.data, "train")
    _, train_features = run(classifier, train[: min(count, rendered(train))])

    scale = arguments.get("true_cfg_scale", arguments.get("guidance_scale"))
    result = {
        "images": count,
        "sampler": f"{type(pipeline.scheduler).__name__}, {args.steps} steps, guidance {scale}, bf16, seed 0",
        "samplingSeconds": round(seconds),
        "accuracy": {
            "generated": accuracies(drawn_classes, truth[:count], names),
            "heldout": accuracies(heldout_classes, truth, names),
        },
        "frechet": distances(drawn_features, heldout_features, train_features),
    }
    (args.model / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
