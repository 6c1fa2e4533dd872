"""Teaches the two text encoders the words before the transformer starts, as CLIP and T5 know them before FLUX does.

    python train_text_encoders.py --data DIR --run RUN --minutes 8

From a caption each encoder learns to name the attributes of its picture: CLIP from the pooled vector, T5 from its sequence,
read by one attention query for each attribute. What a caption leaves out it cannot know; there it learns how common each value
is. The heads are thrown away. Ten minutes on one core; without it a transformer trained for an hour on a CPU still guesses colours.

RUN holds tokenizer/ and tokenizer_2/ (prompt_tokenizers.py, which also wrote the captions' token ids). Writes RUN/text_encoders.pt.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from prompt_model import TextEncoders, add_text_arguments, text_configs
from prompt_tokenizers import load_tokenizers
from prompts_data import load_attributes, load_index


class AttributeHeads(nn.Module):
    """Logits of every attribute from the pooled vector [B, Dc] and, apart, from the sequence [B, T, Dt]."""

    def __init__(self, counts: list[int], clip_width: int, t5_width: int):
        super().__init__()
        self.counts = counts
        self.from_pooled = nn.Linear(clip_width, sum(counts))
        self.queries = nn.Parameter(torch.randn(len(counts), t5_width) * t5_width**-0.5)
        self.keys = nn.Linear(t5_width, t5_width)
        self.from_tokens = nn.ModuleList(nn.Linear(t5_width, count) for count in counts)

    def forward(self, pooled, text) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        scores = torch.einsum("ad,btd->bat", self.queries, self.keys(text))
        read = scores.softmax(dim=-1).to(text.dtype) @ text
        sequence = [head(read[:, i]) for i, head in enumerate(self.from_tokens)]
        return list(self.from_pooled(pooled).split(self.counts, dim=1)), sequence


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by render-prompts.mjs")
    parser.add_argument("--run", type=Path, required=True, help="folder with the tokenizers; takes text_encoders.pt")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--resume", action="store_true", help="go on with RUN/text_encoders.pt, with new heads")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default="cpu")
    add_text_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    values = load_index(args.data)["attributes"]
    data = {}
    for split in ("train", "heldout"):
        ids = load_file(args.data / f"{split}_ids.safetensors")
        rows = len(ids["t5"])
        attributes = load_attributes(args.data, split)[:rows]
        data[split] = [part.to(args.device) for part in (ids["clip"], ids["t5"], attributes)]
    configs = text_configs(args, *(len(tokenizer) for tokenizer in load_tokenizers(args.run)))
    encoders = TextEncoders(configs).to(args.device)
    before = 0
    if args.resume:
        saved = torch.load(args.run / "text_encoders.pt", weights_only=True, map_location=args.device)
        encoders.load_state_dict(saved["model"])
        before = saved["captions"]
    heads = AttributeHeads([len(v) for v in values.values()], args.clip_width, args.t5_width).to(args.device)
    optimizer = torch.optim.AdamW([*encoders.parameters(), *heads.parameters()], args.lr, betas=(0.9, 0.99), weight_decay=0.01)

    def losses(clip_ids, t5_ids, attributes):
        with torch.autocast(args.device.type, torch.bfloat16):
            both = heads(*encoders.encode_text(clip_ids.long(), t5_ids.long()))
        parts = [[F.cross_entropy(row.float(), attributes[:, i]) for i, row in enumerate(rows)] for rows in both]
        right = [[(row.argmax(dim=1) == attributes[:, i]).float().mean() for i, row in enumerate(rows)] for rows in both]
        return sum(map(sum, parts)), torch.tensor(right)

    clip_ids, t5_ids, attributes = data["train"]
    start, step = time.time(), 0
    while (progress := (time.time() - start) / (60 * args.minutes)) < 1:
        optimizer.param_groups[0]["lr"] = args.lr * min(1.0, (step + 1) / 100, 2 * (1 - progress))
        rows = torch.randint(len(t5_ids), (args.batch,), device=args.device)
        which = torch.randint(t5_ids.shape[1], (args.batch,), device=args.device)
        loss, _ = losses(clip_ids[rows, which], t5_ids[rows, which], attributes[rows])
        loss.backward()
        nn.utils.clip_grad_norm_([*encoders.parameters(), *heads.parameters()], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.3f} {step * args.batch / (time.time() - start):.0f} captions/s", flush=True)

    torch.save({"configs": configs, "model": encoders.state_dict(), "captions": before + step * args.batch}, args.run / "text_encoders.pt")
    with torch.no_grad():
        clip_ids, t5_ids, attributes = (part[:2000] for part in data["heldout"])
        _, right = losses(clip_ids[:, 0], t5_ids[:, 0], attributes)
    for name, pooled, sequence in zip(values, *right.tolist()):
        print(f"held-out {name}: {pooled:.3f} from CLIP, {sequence:.3f} from T5")


if __name__ == "__main__":
    main()
