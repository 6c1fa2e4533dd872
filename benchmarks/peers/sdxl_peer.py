"""Times diffusers' SDXL U-Net on the files of benchmarks/sdxl-full-size.mjs: a full step, and the package DeepCache's step between.

    python benchmarks/peers/sdxl_peer.py --model DIR [--size 512] [--dtype float32] [--rows 2] [--threads 2]

Needs `DeepCache==0.1.1` beside requirements.txt.
"""

import argparse
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from DeepCache import DeepCacheSDHelper
from diffusers import UNet2DConditionModel


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rows", type=int, default=2, help="2 under guidance")
    parser.add_argument("--cuts", type=int, nargs="+", default=[1, 5, 6], help="cache_branch_id")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    start = time.time()
    unet = UNet2DConditionModel.from_pretrained(args.model / "unet", torch_dtype=dtype).eval()
    print(f"{args.size}x{args.size}, {args.dtype}, {args.rows} rows, {args.threads} threads; opened after {time.time() - start:.1f} s")

    side, normal = args.size // 8, torch.Generator().manual_seed(0)
    sample, text, pooled = (
        torch.randn(args.rows, *shape, generator=normal).to(dtype) for shape in ((4, side, side), (77, 2048), (1280,))
    )
    sizes = torch.tensor([[args.size, args.size, 0, 0, args.size, args.size]] * args.rows, dtype=dtype)
    added = {"text_embeds": pooled, "time_ids": sizes}
    scheduler = SimpleNamespace(timesteps=[981, 961])

    @torch.no_grad()
    def step(t: int) -> float:
        began = time.time()
        unet(sample, torch.tensor(t), encoder_hidden_states=text, added_cond_kwargs=added)
        return time.time() - began

    def peak() -> str:
        return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"

    print(f"full: {step(981):.1f} s (first), {step(981):.1f} s; {peak()}", flush=True)
    for cut in args.cuts:
        helper = DeepCacheSDHelper(pipe=SimpleNamespace(unet=unet, scheduler=scheduler))
        helper.set_params(cache_interval=2, cache_branch_id=cut)
        helper.enable()
        full, between = (step(t) for t in scheduler.timesteps)
        helper.disable()
        print(f"DeepCache {cut}: full {full:.1f} s, between {between:.1f} s; {peak()}", flush=True)


if __name__ == "__main__":
    main()
