"""What all runs of training have in common: time, learning rates, the moving average, checkpoints, reports."""

import os
import time
from datetime import datetime
from pathlib import Path

import torch


def add_run_arguments(parser, power_average=True):
    """Options of a run. Those without a default here get one by `parser.set_defaults`.

    power_average  whether the moving average is the power function's, not another `decay` of the run
    """
    end = parser.add_mutually_exclusive_group(required=True)
    end.add_argument("--minutes", type=float, help="length of the run")
    end.add_argument("--until", help="end of the run, the next HH:MM")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    parser.add_argument("--stop-file", type=Path, help="end the run at once when this file exists")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--muon-lr", type=float)
    parser.add_argument("--adam-lr", type=float)
    parser.add_argument("--warmup", type=int, help="steps")
    parser.add_argument("--hold", type=float, help="share of the time at the peak learning rate")
    if power_average:
        parser.add_argument("--ema-gamma", type=float, default=9.0, help="exponent of the power-function EMA")
    parser.add_argument("--report-every", type=int, default=50, help="steps")
    parser.add_argument("--checkpoint-every", type=float, default=180, help="seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--seed", type=int, default=0)


def lr_factor(progress: float, step: int, warmup: int, hold: float) -> float:
    """Linear warm-up by steps, then constant until `hold` of the time, then linear to zero."""
    decay = min(1.0, max(0.0, (1 - progress) / (1 - hold)))
    return min(1.0, (step + 1) / warmup) * decay


def end_time(args, start: float) -> float:
    """When a run is to end: so many minutes after its start, or the next time the clock shows HH:MM."""
    if not args.until:
        return start + 60 * args.minutes
    hour, minute = map(int, args.until.split(":"))
    end = datetime.now().replace(hour=hour, minute=minute, second=0).timestamp()
    return end if end > time.time() else end + 86400


def saved_run(args, path: Path) -> dict | None:
    """The checkpoint from which a run goes on, if it does."""
    return torch.load(path, weights_only=True, map_location=args.device) if args.resume else None


class TrainingRun:
    """A run by wall-clock time: `for progress in run.steps(...): ...; run.learn(loss)`.

    args       those of `add_run_arguments`
    facts      what the checkpoint at `path` says besides: configs
    saved      the checkpoint to go on from
    trained    the part of `model` that learns, by name ("": all of it)
    generator  what draws batches; a run that goes on draws others than before

    `decay` is how much of the moving average a step leaves, a function of the step.
    """

    def __init__(self, args, path: Path, facts: dict, model, ema, optimizers, saved=None, trained="", generator=None):
        self.args, self.path, self.facts = args, path, facts
        self.model, self.ema, self.optimizers = model, ema, optimizers
        self.rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
        self.parameters, self.averages = (list(net.get_submodule(trained).parameters()) for net in (model, ema))
        self.step, self.samples, self.start, self.spent = 0, 0, time.time(), 0.0
        self.tasks, self.recent = [], []
        self.decay = lambda step: (1 - 1 / step) ** (args.ema_gamma + 1)
        if saved:
            model.load_state_dict(saved["model"])
            ema.load_state_dict(saved["ema"])
            for optimizer, state in zip(optimizers, saved["optimizers"]):
                optimizer.load_state_dict(state)
            self.step, self.samples, self.start, self.spent = (saved[key] for key in ("step", "samples", "start", "cpuSeconds"))
            torch.manual_seed(args.seed + self.step)
            if generator:
                generator.manual_seed(args.seed + self.step)
        self.end = end_time(args, self.start)
        self.every(args.checkpoint_every, self.save)

    def every(self, seconds: float, task) -> None:
        """Does a task at such intervals and at the end; not at all if they are 0."""
        if seconds:
            self.tasks.append([time.time() + seconds, seconds, task])

    def steps(self, what: str):
        """Yields the share of the time that has passed, until that, or the stop file, is there."""
        print(f"{what}, until {datetime.fromtimestamp(self.end):%H:%M:%S}", flush=True)
        args, self.reported = self.args, time.time()
        while (now := time.time()) < self.end and not (args.stop_file and args.stop_file.exists()):
            progress = (now - self.start) / (self.end - self.start)
            factor = lr_factor(progress, self.step, args.warmup, args.hold)
            for optimizer, rate in zip(self.optimizers, self.rates):
                optimizer.param_groups[0]["lr"] = rate * factor
            yield progress
            if self.step % args.report_every == 0:
                self.report(progress, factor)
            for due in self.tasks:
                if time.time() >= due[0]:
                    due[2]()
                    due[0] = time.time() + due[1]
        for _, _, task in self.tasks:
            task()
        print(f"done: {self.step} steps, {self.samples} images, {(time.time() - self.start) / 60:.1f} minutes")

    def learn(self, loss: torch.Tensor, **figures: torch.Tensor) -> None:
        """A step down the gradient of the loss of a batch; figures are reported beside it."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step, self.samples = self.step + 1, self.samples + self.args.batch
        torch._foreach_lerp_(self.averages, self.parameters, 1 - self.decay(self.step))
        self.recent.append({name: figure.detach() for name, figure in {"loss": loss, **figures}.items()})

    def report(self, progress: float, factor: float) -> None:
        now = time.time()
        means = {name: torch.stack([one[name] for one in self.recent]).mean().item() for name in self.recent[0]}
        figures = " ".join(f"{name} {mean:.4g}" for name, mean in means.items())
        speed = len(self.recent) * self.args.batch / (now - self.reported)
        print(
            f"{datetime.now():%H:%M:%S} step {self.step} seen {self.samples} progress {progress:.3f} lr x{factor:.3f} "
            f"{figures} {speed:.1f} images/s",
            flush=True,
        )
        self.recent, self.reported = [], now

    def save(self) -> None:
        state = {
            **self.facts,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "samples": self.samples,
            "start": self.start,
            "minutes": (time.time() - self.start) / 60,
            "cpuSeconds": self.spent + time.process_time(),
        }
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.path)
