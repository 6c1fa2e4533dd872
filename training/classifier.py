"""Trains the small CNN whose features and labels judge generated avatars.

    python classifier.py --data DIR

Four 3x3 convolutions of stride 2 with ReLU, average pooling, one linear layer. Batch normalisation is
used in training and folded into the convolutions for export, so the files hold plain convolutions.
The features for Frechet distances are the spatial means of the last two convolutions, concatenated.
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

from train import Batches, load_split, to_model_range

WIDTHS = [24, 48, 96, 128]


class Classifier(nn.Module):
    def __init__(self, classes: int, normalise: bool):
        super().__init__()
        inputs = [3, *WIDTHS[:-1]]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=2, padding=1, bias=not normalise) for i, o in zip(inputs, WIDTHS)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) if normalise else nn.Identity() for o in WIDTHS)
        self.linear = nn.Linear(WIDTHS[-1], classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images in [-1, 1] -> logits and features."""
        pooled = []
        for conv, norm in zip(self.convs, self.norms):
            x = F.relu(norm(conv(x)))
            pooled.append(x.mean(dim=(2, 3)))
        return self.linear(pooled[-1]), torch.cat(pooled[-2:], dim=1)

    def folded(self) -> "Classifier":
        """The same function without batch normalisation, rounded to fp16."""
        plain = Classifier(self.linear.out_features, normalise=False).eval()
        self.eval()
        plain.convs = nn.ModuleList(fuse_conv_bn_eval(c, n) for c, n in zip(self.convs, self.norms))
        plain.linear = self.linear
        return plain.half().float().requires_grad_(False)


def load_classifier(folder: Path) -> Classifier:
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "classifier.safetensors").items()}
    model = Classifier(len(tensors["linear.bias"]), normalise=False).eval().requires_grad_(False)
    model.load_state_dict(tensors)
    return model


@torch.no_grad()
def run(model: Classifier, images: torch.Tensor, batch: int = 250) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted classes and features of uint8 images [N, H, W, 3]."""
    outputs = [model(to_model_range(part)) for part in images.split(batch)]
    return torch.cat([o[0] for o in outputs]).argmax(dim=1), torch.cat([o[1] for o in outputs])


def statistics(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    features = features.double()
    return features.mean(dim=0), torch.cov(features.T)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render.mjs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "models/avatars-classifier")
    parser.add_argument("--images", type=int, default=100_000, help="training images to show, repeats included")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    index = json.loads((args.data / "index.json").read_text())
    batches = Batches(*load_split(args.data, "train"), args.batch, seed=0)
    model = Classifier(len(index["classes"]), normalise=True).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    steps = args.images // args.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps)
    start = time.time()
    for step in range(1, steps + 1):
        x, y = batches.next()
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = model(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), y, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}/{steps} loss {loss:.4f} {time.time() - start:.0f} s", flush=True)

    model = model.folded()
    images, labels = load_split(args.data, "heldout")
    predicted, features = run(model, images)
    accuracy = (predicted == labels).float().mean().item()
    print(f"held-out accuracy {accuracy:.4f}")

    args.out.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, args.out / "classifier.safetensors")
    mean, covariance = statistics(features)
    reference = {"mean": mean.float(), "covariance": covariance.float().contiguous()}
    save_file(reference, args.out / "heldout_statistics.safetensors")
    description = {
        "classes": index["classes"],
        "imageSize": 64,
        "input": "RGB, 64x64, values in [-1, 1], [N, 3, 64, 64]",
        "layers": [
            {"name": f"convs.{i}", "type": "conv2d", "kernel": 3, "stride": 2, "padding": 1, "out": width, "activation": "relu"}
            for i, width in enumerate(WIDTHS)
        ],
        "logits": "linear(spatial mean of convs.3)",
        "features": "spatial mean of convs.2 (96 values), then of convs.3 (128 values), after ReLU",
        "heldoutImages": len(labels),
        "heldoutAccuracy": round(accuracy, 4),
    }
    (args.out / "config.json").write_text(json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    main()
