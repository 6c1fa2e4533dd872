"""Draws one image with diffusers' DiTPipeline in a process of its own, and prints what it took as one line of JSON.

    python benchmarks/peers/torch_peer.py JSON    (compare.py writes the JSON)
"""

import json
import re
import sys
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import CacheMixin, DiTPipeline, DiTTransformer2DModel, TaylorSeerCacheConfig


class CachingDiT(DiTTransformer2DModel, CacheMixin):
    """diffusers gives its DiT no `enable_cache` and no `cache_context`; the hooks themselves work on it."""


# The modules that femo forecasts at each level.
TAYLORSEER_MODULES = {
    "module": dict(cache_identifiers=[r"transformer_blocks\.\d+\.(attn1|ff)"]),
    "output": dict(cache_identifiers=["proj_out_2"], skip_predict_identifiers=[r"transformer_blocks\.\d+"]),
}


def enable_taylorseer(transformer: CachingDiT, job: dict) -> list[int]:
    """Returns the list in which the last hook notes at every step whether it computes."""
    config = TaylorSeerCacheConfig(
        cache_interval=job["interval"],
        disable_cache_before_step=job["first"],
        max_order=job["order"],
        taylor_factors_dtype=torch.float32,
        **TAYLORSEER_MODULES[job["granularity"]],
    )
    transformer.enable_cache(config)
    last = transformer.proj_out_2 if job["granularity"] == "output" else transformer.transformer_blocks[-1].ff
    hook = last._diffusers_hook.get_hook("taylorseer_cache")
    decide, decisions = hook._measure_should_compute, []

    @torch.compiler.disable
    def note():
        should_compute, state = decide()
        decisions.append(should_compute)
        return should_compute, state

    hook._measure_should_compute = note
    return decisions


def enable_dbcache(pipeline: DiTPipeline, job: dict) -> None:
    import cache_dit

    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        residual_diff_threshold=1e6,  # measured against at every step, and never reached
        max_warmup_steps=job["first"],
        max_continuous_cached_steps=job["interval"] - 1,
        enable_separate_cfg=False,
        steps_computation_mask=[int(step in job["fullSteps"]) for step in range(job["steps"])],
    )
    cache_dit.enable_cache(pipeline, cache_config=config)
    if job["compiled"]:
        cache_dit.set_compile_configs()


def dbcache_decisions(pipeline: DiTPipeline, steps: int) -> list[bool]:
    import cache_dit

    cached = cache_dit.summary(pipeline, logging=False)[0].cached_steps
    return [step not in cached for step in range(steps)]


def peak_mb() -> float:
    """Peak resident memory since the start or the last reset."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def draw(pipeline: DiTPipeline, job: dict, steps: int) -> tuple[dict, torch.Tensor, bytes]:
    """The times of one image in seconds (`ends`: of every step, from the call), its final latents and its pixels."""
    ends, latents, scheduler_step = [], None, pipeline.scheduler.step

    def step(*args, **kwargs):
        nonlocal latents
        result = scheduler_step(*args, **kwargs)
        latents = result.prev_sample[0]
        ends.append(time.perf_counter() - start)
        return result

    pipeline.scheduler.step = step
    # DiTPipeline sets no context; guidance is one batch, so one context holds for the whole call.
    context = pipeline.transformer.cache_context("guided") if job["method"] == "taylorSeer" else nullcontext()
    with context:
        start = time.perf_counter()
        image = pipeline(
            class_labels=[job["label"]],
            guidance_scale=job["guidance"],
            generator=torch.Generator().manual_seed(job["seed"]),
            num_inference_steps=steps,
            output_type="np",
        ).images[0]
        seconds = time.perf_counter() - start
    pipeline.scheduler.step = scheduler_step
    return {"seconds": seconds, "ends": ends}, latents, (image * 255).round().astype("uint8").tobytes()


def main():
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    start = time.perf_counter()
    model = CachingDiT if job["method"] == "taylorSeer" else DiTTransformer2DModel
    transformer = model.from_pretrained(job["model"], subfolder="transformer")
    pipeline = DiTPipeline.from_pretrained(job["model"], transformer=transformer)
    del pipeline.vae.encoder  # a random model has none, and drawing needs none
    pipeline.set_progress_bar_config(disable=True)
    decisions = enable_taylorseer(transformer, job) if job["method"] == "taylorSeer" else []
    if job["method"] == "dbCache":
        enable_dbcache(pipeline, job)
    if job["compiled"]:
        transformer.compile()
    load_seconds = time.perf_counter() - start

    warm_up, _, _ = draw(pipeline, job, job["warmUpSteps"])
    loading_peak = peak_mb()
    reset_peak()
    decisions.clear()
    times, latents, pixels = draw(pipeline, job, job["steps"])
    drawing_peak = peak_mb()

    if job["method"] == "none":
        decisions = [True] * job["steps"]
    if job["method"] == "dbCache":
        decisions = dbcache_decisions(pipeline, job["steps"])
    Path(f"{job['out']}.latents").write_bytes(latents.numpy().tobytes())
    Path(f"{job['out']}.rgb").write_bytes(pixels)
    result = times | {
        "fullSteps": [step for step, computed in enumerate(decisions) if computed],
        "loadSeconds": load_seconds,
        "warmUpSeconds": warm_up["seconds"],
        "loadingPeakMB": loading_peak,
        "drawingPeakMB": drawing_peak,
        "versions": {name: version(name) for name in ("torch", "diffusers", "cache-dit")},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
