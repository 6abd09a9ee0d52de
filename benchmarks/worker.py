"""One contender in a process of its own: measured alone, or under a driver's command.

python -m benchmarks.worker jax_scan_f32 --steps 1000
"""

import argparse
import json
import sys
import time

from . import environment, variants
from .contenders import entry, load, missing
from .pipes import serve


def arguments(argv) -> argparse.Namespace:
    """The command line; every field of `Setting` is an option of the same name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("name", help="contender, such as book_f32")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--setting", type=json.loads, default={}, help="JSON")
    parser.add_argument("--serve", action="store_true", help="obey standard input")
    return parser.parse_args(argv)


class Worker:
    """Answers the driver's commands: one dictionary in, one dictionary out."""

    def __init__(self, name: str, setting: dict):
        began = time.perf_counter()
        from .problem import Problem, Setting  # after the environment has been settled

        cls = load(name)
        self.setting = Setting(dtype=entry(name)[1], **setting)
        self.problem, self.cls = Problem(self.setting), cls
        self.contender = cls(self.problem)
        self.started = time.perf_counter() - began

    def check(self, documents, path) -> dict:
        """Loss and gradients of some documents, with disturbed weights, as a file."""
        import numpy as np

        from .problem import Problem

        problem = Problem(self.setting)
        problem.disturb()
        contender, out = self.cls(problem), {}
        for number in documents:
            loss, grads = contender.loss_and_grads(problem.tokens(number, 1)[0])
            out |= {f"{number}/{name}": x for name, x in grads.items()}
            out[f"{number}/loss"] = loss
        np.savez(path, **out)
        return {}

    def prepare(self, steps) -> dict:
        """Compile; the seconds, start included, are what a first run waits for."""
        began = time.perf_counter()
        self.contender.prepare(steps)
        return {"seconds": time.perf_counter() - began, "start": self.started}

    def run(self, steps, repeat=1) -> dict:
        """Train from the initial weights: the seconds it took, the losses.

        With `repeat` it is done several times, and the mean of the seconds returned.
        """
        seconds = 0.0
        for _ in range(repeat):
            self.contender.reset()
            began = time.perf_counter()
            losses = self.contender.run(steps)
            seconds += time.perf_counter() - began
        return {"seconds": seconds / repeat, "losses": [float(x) for x in losses]}

    def sample(self, count, many, temperature=0.5) -> dict:
        """Draw names, one by one or many at a time, as the last run left the model."""
        import random

        import microgpt
        from microgpt.sampling import sample_many

        arguments = self.contender.model, self.problem.corpus, random.Random(1)

        def draw(count):
            if many:
                return sample_many(*arguments, count, temperature)
            return [microgpt.sample(*arguments, temperature) for _ in range(count)]

        draw(1)
        began = time.perf_counter()
        names = draw(count)
        return {"seconds": time.perf_counter() - began, "names": names}


def report(worker: Worker, name: str, steps: int, rounds: int) -> None:
    """Measure this contender alone and print the result."""
    ready = worker.prepare(steps)
    runs = [worker.run(steps) for _ in range(rounds)]
    us = sorted(1e6 * run["seconds"] / steps for run in runs)
    losses = runs[0]["losses"]
    first, last = (sum(x) / len(x) for x in (losses[:100], losses[-100:]))
    print(f"{name} ({worker.setting.label()}): {us[len(us) // 2]:.2f} us a step, ")
    print(f"  {us[0]:.2f} to {us[-1]:.2f}, {rounds} rounds of {steps} steps")
    print(f"  start {ready['start']:.1f} s, compilation {ready['seconds']:.1f} s")
    print(f"  loss {losses[0]:.5f}, first 100 {first:.4f}, last 100 {last:.4f}")


def main(argv=None) -> int:
    """Run one contender; 2 after a mistake, told in one line."""
    args = arguments(argv)
    try:
        absent = missing(args.name)
    except ValueError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    if absent:
        print(f"benchmarks: error: {args.name} needs {absent}", file=sys.stderr)
        return 2
    environment.settle(args.setting.get("threads", 1))
    variants.apply(entry(args.name)[0].variant)
    if args.serve:
        serve(lambda: Worker(args.name, args.setting))
    else:
        report(Worker(args.name, args.setting), args.name, args.steps, args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
