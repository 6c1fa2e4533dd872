"""Times a step of diffusers' pipeline of a model, eager, for benchmarks/device.mjs: milliseconds by data type, as JSON.

    python benchmarks/peers/torch_step.py --model DIR --request '{"class_labels": [0]}' --device cuda --dtypes float32,bfloat16

The median over an image's steps, after one that touches everything.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from diffusers import DiffusionPipeline


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--request", type=json.loads, required=True, help="what the pipeline is called with, as JSON")
    args = parser.parse_args()
    print(json.dumps({name: step_ms(args, getattr(torch, name)) for name in args.dtypes.split(",")}))


def step_ms(args, dtype: torch.dtype) -> float:
    # Not to spare memory, as a random model lacks what encodes pictures, which then is any.
    settings = dict(dtype=dtype, local_files_only=True, low_cpu_mem_usage=False)
    pipeline = DiffusionPipeline.from_pretrained(args.model, **settings).to(args.device)
    pipeline.set_progress_bar_config(disable=True)
    scheduler_step, ends = pipeline.scheduler.step, []

    def step(*given, **named):
        result = scheduler_step(*given, **named)
        if args.device == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        return result

    pipeline.scheduler.step = step
    for _ in range(2):
        ends.clear()
        pipeline(**args.request, generator=torch.Generator(args.device).manual_seed(1))
    return 1000 * statistics.median(after - before for before, after in zip(ends, ends[1:]))


if __name__ == "__main__":
    main()
