"""Judges the exported model: classifier accuracy and Frechet distances of generated avatars.

    python evaluate.py --data DIR

Generates the same number of images of every class with guided DDIM in bf16, then compares them with the
held-out images in the features of models/avatars-classifier. Writes evaluation.json and samples.png (the
first images of every class, uncurated) into the model's folder. The distances live in a feature space of
their own: they compare models and samplers on this data, and mean nothing beside published FIDs.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from classifier import load_classifier, run, statistics
from export import load_exported
from model import sample_ddim
from train import load_split, save_grid

MODELS = Path(__file__).parent.parent / "models"


def frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) of two feature sets' normal distributions."""
    (mean_a, cov_a), (mean_b, cov_b) = statistics(a), statistics(b)
    # The eigenvalues of A B are those of the symmetric A^(1/2) B A^(1/2).
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def distances(generated: torch.Tensor, heldout: torch.Tensor, train: torch.Tensor) -> dict[str, float]:
    """How far features of generated pictures are from those held out, beside what other pictures of the same kind are."""
    pairs = {
        "generatedToHeldout": (generated, heldout),
        "trainToHeldoutSameCount": (train, heldout),
        "heldoutHalves": (heldout[::2], heldout[1::2]),
    }
    return {name: round(frechet(*pair), 4) for name, pair in pairs.items()}


def per_class_accuracy(predicted: torch.Tensor, labels: torch.Tensor, names: list[str]) -> dict[str, float]:
    hits = (predicted == labels).float()
    result = {name: round(hits[labels == i].mean().item(), 4) for i, name in enumerate(names)}
    return result | {"all": round(hits.mean().item(), 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render.mjs")
    parser.add_argument("--model", type=Path, default=MODELS / "avatars-dit")
    parser.add_argument("--classifier", type=Path, default=MODELS / "avatars-classifier")
    parser.add_argument("--per-class", type=int, default=250)
    parser.add_argument("--minutes", type=float, default=60, help="stop sampling after this time, with fewer images")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=9, help="images sampled together, a multiple of the classes; many on a GPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model, classifier = load_exported(args.model).to(args.device), load_classifier(args.classifier)
    names = json.loads((args.data / "index.json").read_text())["classes"]
    model.compile(dynamic=False)
    generator = torch.Generator().manual_seed(args.seed)
    labels = torch.arange(len(names)).repeat(args.per_class)
    shape = (model.config.channels, model.config.size, model.config.size)
    parts, start = [], time.time()
    for rows in labels.split(args.batch):
        noise = torch.randn(len(rows), *shape, generator=generator)
        rows, noise = rows.to(args.device), noise.to(args.device)
        drawn = sample_ddim(model, rows, args.steps, args.guidance, noise, torch.bfloat16)
        parts.append(drawn.clamp(-1, 1).cpu())
        done = sum(map(len, parts))
        if done // 250 > (done - len(rows)) // 250:
            print(f"{done}/{len(labels)} images, {time.time() - start:.0f} s", flush=True)
        if time.time() - start > 60 * args.minutes:
            break
    images = torch.cat(parts)
    labels = labels[: len(images)]
    seconds = time.time() - start
    save_grid(images[: 8 * len(names)], len(names), args.model / "samples.png")

    generated = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    generated_classes, generated_features = run(classifier, generated)
    heldout, heldout_labels = load_split(args.data, "heldout")
    heldout_classes, heldout_features = run(classifier, heldout)
    train, train_labels = load_split(args.data, "train")
    rows = torch.cat([(train_labels == i).nonzero()[: len(labels) // len(names), 0] for i in range(len(names))])
    _, train_features = run(classifier, train[rows])

    result = {
        "images": len(labels),
        "sampler": f"DDIM, {args.steps} steps, guidance {args.guidance}, bf16, seed {args.seed}",
        "samplingSeconds": round(seconds),
        "accuracy": {
            "generated": per_class_accuracy(generated_classes, labels, names),
            "heldout": per_class_accuracy(heldout_classes, heldout_labels, names),
        },
        "frechet": distances(generated_features, heldout_features, train_features),
    }
    (args.model / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
