"""Trains the CNN that judges the text-to-image model: it names every attribute of an avatar.

    python prompts_classifier.py --data DIR

Five 3x3 convolutions of stride 2 with ReLU, spatial mean, one linear layer per attribute. Batch normalisation is used in
training and folded into the convolutions for export. The features for Frechet distances are the spatial means of the
last two convolutions, concatenated.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from classifier import statistics
from prompts_data import load_attributes, load_images, load_index, rendered
from train import to_model_range

WIDTHS = [16, 32, 64, 128, 192]


class AttributeClassifier(nn.Module):
    """`heads`: number of values of each attribute."""

    def __init__(self, heads: dict[str, int], normalise: bool):
        super().__init__()
        inputs = [3, *WIDTHS[:-1]]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=2, padding=1, bias=not normalise) for i, o in zip(inputs, WIDTHS)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) if normalise else nn.Identity() for o in WIDTHS)
        # Where a part is tells as much as what it is: the last map (4x4) is read whole.
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTHS[-1] * 16, count) for name, count in heads.items()})

    def forward(self, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Images in [-1, 1] -> logits of every attribute, and features."""
        pooled = []
        for conv, norm in zip(self.convs, self.norms):
            x = F.relu(norm(conv(x)))
            pooled.append(x.mean(dim=(2, 3)))
        flat = x.flatten(1)
        return {name: head(flat) for name, head in self.heads.items()}, torch.cat(pooled[-2:], dim=1)

    def folded(self) -> "AttributeClassifier":
        """The same function without batch normalisation, rounded to fp16."""
        counts = {name: head.out_features for name, head in self.heads.items()}
        plain = AttributeClassifier(counts, normalise=False).eval()
        self.eval()
        plain.convs = nn.ModuleList(fuse_conv_bn_eval(c, n) for c, n in zip(self.convs, self.norms))
        plain.heads = self.heads
        return plain.cpu().half().float().requires_grad_(False)


def load_classifier(folder: Path) -> AttributeClassifier:
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "classifier.safetensors").items()}
    heads = json.loads((folder / "config.json").read_text())["attributes"]
    model = AttributeClassifier({name: len(values) for name, values in heads.items()}, normalise=False)
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def run(model: AttributeClassifier, images: torch.Tensor, batch: int = 250) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted values [N, attributes] and features of uint8 images [N, H, W, 3]."""
    classes, features = [], []
    for part in images.split(batch):
        logits, feature = model(to_model_range(part))
        classes.append(torch.stack([row.argmax(dim=1) for row in logits.values()], dim=1))
        features.append(feature)
    return torch.cat(classes), torch.cat(features)


def accuracies(predicted: torch.Tensor, attributes: torch.Tensor, names: list[str]) -> dict[str, float]:
    """Share of right values per attribute."""
    return {name: round(share, 4) for name, share in zip(names, (predicted == attributes).float().mean(dim=0).tolist())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render-prompts.mjs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "models/avatars-flux-classifier")
    parser.add_argument("--images", type=int, default=100_000, help="training images to show, repeats included")
    parser.add_argument("--minutes", type=float, default=60, help="stop after this time; the learning rate follows the nearer end")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    values = load_index(args.data)["attributes"]
    names = list(values)
    images, attributes = load_images(args.data, "train"), load_attributes(args.data, "train")
    count = rendered(images)
    images, attributes = images[:count], attributes[:count].to(args.device)
    if args.device.type == "cuda":
        images = images.to(args.device)
    model = AttributeClassifier({name: len(v) for name, v in values.items()}, normalise=True)
    model = model.to(args.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.02)
    start, step, seen = time.time(), 0, 0
    while True:
        progress = max(seen / args.images, (time.time() - start) / (60 * args.minutes))
        if progress >= 1:
            break
        optimizer.param_groups[0]["lr"] = args.lr * min(1.0, (step + 1) / 50, 2 * (1 - progress))
        rows = torch.randint(count, (args.batch,), device=images.device)
        x = to_model_range(images[rows]).contiguous(memory_format=torch.channels_last)
        # What the judged images have and renders have not must not matter: a little noise in half of them.
        if step % 2:
            x = x + 0.05 * torch.randn_like(x)
        with torch.autocast(args.device.type, torch.bfloat16):
            logits, _ = model(x)
        y = attributes[rows.to(attributes.device)]
        loss = sum(F.cross_entropy(logits[name].float(), y[:, i], label_smoothing=0.02) for i, name in enumerate(names))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step, seen = step + 1, seen + args.batch
        if step % 100 == 0:
            print(f"step {step} seen {seen} loss {loss:.4f} {time.time() - start:.0f} s", flush=True)

    model = model.folded()
    heldout, truth = load_images(args.data, "heldout"), load_attributes(args.data, "heldout")
    predicted, features = run(model, heldout)
    accuracy = accuracies(predicted, truth, names)
    print(f"held-out accuracy {accuracy}")

    args.out.mkdir(parents=True, exist_ok=True)
    save_file({name: t.half().contiguous() for name, t in model.state_dict().items()}, args.out / "classifier.safetensors")
    mean, covariance = statistics(features)
    save_file({"mean": mean.float(), "covariance": covariance.float().contiguous()}, args.out / "heldout_statistics.safetensors")
    description = {
        "attributes": values,
        "imageSize": 128,
        "input": "RGB, 128x128, values in [-1, 1], [N, 3, 128, 128]",
        "layers": [
            {"name": f"convs.{i}", "type": "conv2d", "kernel": 3, "stride": 2, "padding": 1, "out": width, "activation": "relu"}
            for i, width in enumerate(WIDTHS)
        ],
        "logits": "per attribute, linear(convs.4 flattened [192 * 4 * 4])",
        "features": f"spatial mean of convs.3 ({WIDTHS[3]} values), then of convs.4 ({WIDTHS[4]} values), after ReLU",
        "trainingImagesSeen": seen,
        "heldoutImages": len(truth),
        "heldoutAccuracy": accuracy,
    }
    (args.out / "config.json").write_text(json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    main()
