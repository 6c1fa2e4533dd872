"""Judges the exported text-to-image model on descriptions of held-out pictures.

    python evaluate_prompts.py --data DIR [--images 1000]

The prompts tell everything of held-out pictures. The classifier of models/avatars-flux-classifier then names what was
drawn: accuracy per attribute, beside its accuracy on the held-out pictures themselves; and Frechet distances in its features, which mean nothing beside published FIDs. Writes evaluation.json,
samples.png (the first pictures, uncurated, with prompts.txt) and other-words.png (prompts in words of our own).
"""

import argparse
import json
import time
from pathlib import Path

import torch

from evaluate import frechet
from export_prompts import load_exported
from prompt_model import IMAGE_TOKENS, sample, unpack, use_plain_attention
from prompt_tokenizers import encode, load_tokenizers
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


@torch.no_grad()
def draw(model, vae, tokenizers, prompts: list[str], args, seed: int) -> torch.Tensor:
    """Images in [-1, 1] for the prompts, in batches; stops early when the time is over."""
    empty = tuple(part.to(args.device) for part in encode(tokenizers, [""]))
    generator, parts, start = torch.Generator().manual_seed(seed), [], time.time()
    for at in range(0, len(prompts), args.batch):
        texts = prompts[at : at + args.batch]
        ids = tuple(part.to(args.device) for part in encode(tokenizers, texts))
        noise = torch.randn(len(texts), IMAGE_TOKENS, model.transformer.config.in_channels, generator=generator)
        x = sample(model, ids, empty, args.steps, args.guidance, noise.to(args.device), torch.bfloat16)
        z = unpack(x) / vae.config.scaling_factor + vae.config.shift_factor
        parts.append(vae.decode(z).sample.clamp(-1, 1).cpu())
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
    parser.add_argument("--guidance", type=float, default=3.0, help="true CFG scale")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.device.type == "cpu":
        use_plain_attention()

    model, vae = (part.to(args.device) for part in load_exported(args.model))
    tokenizers, classifier = load_tokenizers(args.model), load_classifier(args.classifier)
    index = load_index(args.data)
    names = list(index["attributes"])

    other = draw(model, vae, tokenizers, OTHER_WORDS, args, seed=1)
    save_grid(other, 4, args.model / "other-words.png", zoom=1)
    prompts = (args.data / "heldout_prompts.txt").read_text().splitlines()[: args.images]
    start = time.time()
    images = draw(model, vae, tokenizers, prompts, args, seed=0)
    seconds, count = time.time() - start, len(images)
    prompts = prompts[:count]
    save_grid(images[:24], 6, args.model / "samples.png", zoom=1)
    (args.model / "prompts.txt").write_text("".join(f"{i + 1}. {text}\n" for i, text in enumerate(prompts[:24])))

    drawn = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    drawn_classes, drawn_features = run(classifier, drawn)
    heldout, truth = load_images(args.data, "heldout"), load_attributes(args.data, "heldout")
    heldout_classes, heldout_features = run(classifier, heldout)
    train = load_images(args.data, "train")
    _, train_features = run(classifier, train[: min(count, rendered(train))])

    result = {
        "images": count,
        "sampler": f"flow-matching Euler, {args.steps} steps, true CFG {args.guidance}, bf16, seed 0",
        "samplingSeconds": round(seconds),
        "accuracy": {
            "generated": accuracies(drawn_classes, truth[:count], names),
            "heldout": accuracies(heldout_classes, truth, names),
        },
        "frechet": {
            "generatedToHeldout": round(frechet(drawn_features, heldout_features), 4),
            "trainToHeldoutSameCount": round(frechet(train_features, heldout_features), 4),
            "heldoutHalves": round(frechet(heldout_features[::2], heldout_features[1::2]), 4),
        },
    }
    (args.model / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
