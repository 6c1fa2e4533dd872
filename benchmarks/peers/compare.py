"""Compares femo with diffusers in PyTorch on the CPU: time and memory of one image, with and without caching.

    npm run build && node benchmarks/random-model.mjs --out DIR
    python -m venv venv && . venv/bin/activate && pip install -r benchmarks/peers/requirements.txt
    python benchmarks/peers/compare.py --model DIR [--rounds 1] [--only femo,torch] [--csv FILE]

Every contender draws the same image with the same weights, seed, sampler and threads in a fresh process of its own, one
after another, in reverse order every other round. Ratios are formed within a round; medians are given, with the least
and the greatest where there is more than one round. Ends with an error if contenders that do the same work draw
different images. Linux only: peak memory is the kernel's VmHWM.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).parent
FIRST_FULL_STEPS = 2
# Uncached, any step will do; cached: full, full, cached, full, cached, after which every order up to 2 has been met.
WARM_UP_STEPS = {"uncached": 2, "cached": FIRST_FULL_STEPS + 3}
GUIDANCE, LABEL, SEED = 4.0, 207, 1
TOLERANCE = 0.01  # of the final latents' standard deviation


def femo(title: str, method: str, granularity: str | None = None) -> dict:
    return {"title": title, "peer": "femo", "method": method, "granularity": granularity, "compiled": False}


def torch(title: str, method: str, granularity: str | None = None, compiled: bool = False, same: str | None = None) -> dict:
    """`same`: the contender that does the same work in femo."""
    settings = {"title": title, "peer": "torch", "method": method, "granularity": granularity}
    return settings | {"compiled": compiled, "same": same}


CONTENDERS = {
    "femo": femo("femo", "none"),
    "femo-taylorseer-module": femo("femo, TaylorSeer, `module`", "taylorSeer", "module"),
    "femo-femo-module": femo("femo, FEMO, `module`", "femo", "module"),
    "femo-taylorseer-output": femo("femo, TaylorSeer, `output`", "taylorSeer", "output"),
    "femo-femo-output": femo("femo, FEMO, `output`", "femo", "output"),
    "torch": torch("PyTorch eager", "none", same="femo"),
    "torch-taylorseer-module": torch(
        "PyTorch eager, diffusers' TaylorSeer, `module`", "taylorSeer", "module", same="femo-taylorseer-module"
    ),
    "torch-taylorseer-output": torch(
        "PyTorch eager, diffusers' TaylorSeer, `output`", "taylorSeer", "output", same="femo-taylorseer-output"
    ),
    "torch-dbcache": torch("PyTorch eager, cache-dit's DBCache F1B0", "dbCache"),
    "compiled": torch("`torch.compile`", "none", compiled=True, same="femo"),
    "compiled-taylorseer-module": torch(
        "`torch.compile`, diffusers' TaylorSeer, `module`", "taylorSeer", "module", True, "femo-taylorseer-module"
    ),
    "compiled-taylorseer-output": torch(
        "`torch.compile`, diffusers' TaylorSeer, `output`", "taylorSeer", "output", True, "femo-taylorseer-output"
    ),
    "compiled-dbcache": torch("`torch.compile`, cache-dit's DBCache F1B0", "dbCache", compiled=True),
}


def full_steps(steps: int, interval: int) -> list[int]:
    """diffusers' schedule, which cannot be set freely: the other contenders are given the same steps."""
    first = FIRST_FULL_STEPS
    return [step for step in range(steps) if step < first or (step - first - 1) % interval == 0]


def job_of(contender: dict, args: argparse.Namespace, out: Path) -> dict:
    full = full_steps(args.steps, args.interval)
    cached = contender["method"] != "none"
    job = {
        "model": str(args.model.resolve()),
        "steps": args.steps,
        "warmUpSteps": WARM_UP_STEPS["cached" if cached else "uncached"],
        "guidance": GUIDANCE,
        "label": LABEL,
        "seed": SEED,
        "threads": args.threads,
        "out": str(out),
    }
    if contender["peer"] == "femo":
        settings = {"granularity": contender["granularity"], "order": args.order, "fullSteps": full, "measure": False}
        return job | {"cache": {"method": contender["method"]} | (settings if cached else {})}
    settings = {"order": args.order, "interval": args.interval, "first": FIRST_FULL_STEPS, "fullSteps": full}
    return job | settings | {key: contender[key] for key in ("method", "granularity", "compiled")}


def run(contender: dict, args: argparse.Namespace, folder: Path) -> dict | None:
    """What the contender printed, its final latents and its pixels; None if it failed."""
    out = folder / "drawn"
    script = ["node", HERE / "femo_peer.mjs"] if contender["peer"] == "femo" else [sys.executable, HERE / "torch_peer.py"]
    # A cache of its own for what is compiled, so that every round compiles; in one process, so that its memory counts.
    env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    done = subprocess.run([*script, json.dumps(job_of(contender, args, out))], capture_output=True, text=True, env=env)
    if done.returncode:
        print(f"{contender['title']} failed:\n{done.stderr[-3000:]}", file=sys.stderr, flush=True)
        return None
    result = json.loads(done.stdout.splitlines()[-1])
    latents = np.frombuffer(out.with_suffix(".latents").read_bytes(), np.float32)
    pixels = np.frombuffer(out.with_suffix(".rgb").read_bytes(), np.uint8)
    return figures(result) | {"latents": latents, "pixels": pixels, "versions": result["versions"]}


def figures(result: dict) -> dict:
    ends, full = result["ends"], set(result["fullSteps"])
    durations = np.diff([0, *ends])
    cached = [duration for step, duration in enumerate(durations) if step not in full]
    return {
        "seconds": result["seconds"],
        "denoising": ends[-1],
        "decoding": result["seconds"] - ends[-1],
        "full_step": median(duration for step, duration in enumerate(durations) if step in full),
        "cached_step": median(cached) if cached else None,
        "full_steps": len(full),
        "loading": result["loadSeconds"],
        "warm_up": result["warmUpSeconds"],
        "peak_mb": max(result["loadingPeakMB"], result["drawingPeakMB"]),
        "drawing_peak_mb": result["drawingPeakMB"],
    }


def disagreement(a: dict, b: dict) -> tuple[float, int]:
    """The greatest difference of the latents over their standard deviation, and that of the pixels in 8-bit levels."""
    latents = np.abs(a["latents"] - b["latents"]).max() / b["latents"].std()
    return float(latents), int(np.abs(a["pixels"].astype(int) - b["pixels"].astype(int)).max())


def spread(values: list[float], digits: int) -> str:
    middle, least, greatest = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return middle if least == greatest else f"{middle} ({least}-{greatest})"


COLUMNS = ["full steps", "s per image", "time", "denoising s", "denoising", "full step s", "cached step s", "decoding s"]
COLUMNS += ["peak MB", "memory", "peak MB drawing", "warm-up s", "off: latents, pixels"]


def table(rounds: list[dict[str, dict]]) -> str:
    lines = [f"| | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    for name, contender in CONTENDERS.items():
        runs = [results for results in rounds if name in results]
        if not runs:
            continue

        def figure(key: str, digits: int = 2) -> str:
            values = [results[name][key] for results in runs]
            return "" if values[0] is None else spread(values, digits)

        def ratio(key: str) -> str:
            ratios = [results[name][key] / results["femo"][key] for results in runs if "femo" in results]
            return spread(ratios, 2) if ratios else ""

        off = runs[0][name].get("off")
        cells = [figure("full_steps", 0), figure("seconds"), ratio("seconds"), figure("denoising"), ratio("denoising")]
        cells += [figure("full_step"), figure("cached_step", 3), figure("decoding")]
        cells += [figure("peak_mb", 0), ratio("peak_mb"), figure("drawing_peak_mb", 0), figure("warm_up", 1)]
        cells += [f"{off[0]:.0e}, {off[1]}" if off else ""]
        lines.append(f"| {contender['title']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_csv(path: Path, rounds: list[dict[str, dict]]) -> None:
    keys = [key for key in next(iter(rounds[0].values())) if key not in ("latents", "pixels", "versions", "off")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "contender", *keys])
        for i, results in enumerate(rounds):
            writer.writerows([i, name, *(result[key] for key in keys)] for name, result in results.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder in diffusers' layout, with weights in fp32")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--interval", type=int, default=5)
    parser.add_argument("--order", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(CONTENDERS)}")
    parser.add_argument("--csv", type=Path, help="every figure of every round")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(CONTENDERS)
    if unknown := [name for name in names if name not in CONTENDERS]:
        parser.error(f"--only: no contender {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")

    rounds, versions, wrong = [], {}, []
    for i in range(args.rounds):
        results = {}
        for name in reversed(names) if i % 2 else names:
            with tempfile.TemporaryDirectory() as folder:
                result = run(CONTENDERS[name], args, Path(folder))
            if not result:
                wrong.append(f"{name} failed")
                continue
            results[name] = result
            versions |= result["versions"]
            print(f"round {i}: {name}: {result['seconds']:.1f} s, {result['peak_mb']:.0f} MB", file=sys.stderr, flush=True)
        for name, result in results.items():
            if (same := CONTENDERS[name].get("same")) in results:
                result["off"] = disagreement(result, results[same])
                if result["off"][0] > TOLERANCE:
                    wrong.append(f"{name} and {same} draw different images")
        rounds.append(results)

    described = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"{args.steps} steps, full ones {full_steps(args.steps, args.interval)}, order {args.order}, {args.threads} threads,")
    print(f"{args.rounds} round(s); {described}\n")
    print(table(rounds))
    if args.csv:
        write_csv(args.csv, rounds)
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
