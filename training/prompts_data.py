"""Reads what render-prompts.mjs wrote: captioned 128x128 avatars and their attributes."""

import json
from pathlib import Path

import numpy as np
import torch


def load_index(folder: Path) -> dict:
    return json.loads((folder / "index.json").read_text())


def load_images(folder: Path, split: str) -> torch.Tensor:
    """uint8 [N, 128, 128, 3], memory-mapped. Rows not rendered yet are black."""
    size = load_index(folder)["size"]
    return torch.from_numpy(np.memmap(folder / f"{split}_images.bin", np.uint8, mode="c").reshape(-1, size, size, 3))


def load_attributes(folder: Path, split: str) -> torch.Tensor:
    """int64 [N, attributes]: positions in the value lists of index.json."""
    columns = len(load_index(folder)["attributes"])
    return torch.from_numpy(np.fromfile(folder / f"{split}_attributes.bin", np.uint8)).view(-1, columns).long()


def load_captions(folder: Path, split: str, count: int | None = None) -> list[list[str]]:
    """The descriptions of the first `count` pictures."""
    with open(folder / f"{split}_captions.txt") as file:
        return [json.loads(line) for _, line in zip(range(count or 2**62), file)]


def rendered(images: torch.Tensor) -> int:
    """Number of leading rows that are there (a row is never all zero), for training while rendering goes on."""
    low, high = 0, len(images)
    while low < high:
        middle = (low + high) // 2
        # Workers interleave chunks of 200 rows: look a few chunks ahead.
        ahead = torch.arange(middle, min(middle + 801, len(images)), 200)
        if bool(images[ahead, 0, 0].any(dim=1).all()):
            low = middle + 1
        else:
            high = middle
    return low
