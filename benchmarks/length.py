"""Whether a long run stays as fast, and as small, as it began."""

import time

from . import environment
from .memory import status
from .pipes import Client, serve
from .summary import ratio, spread, summary

WINDOWS = 20  # of equal numbers of steps, each timed
CHUNK = 5000  # steps between two looks at the clock


class Worker:
    """The book's float32 run in a process of its own, window by window."""

    def run(self, steps: int) -> dict:
        """Microseconds a step and the resident bytes at the end of every window."""
        from microgpt import training

        from .problem import Problem, Setting

        setting = Setting(dtype="float32")
        problem = Problem(setting)
        recipe = training.Recipe(steps, 0.01, 0.85, 0.99, 1e-8, 1, 1)
        model = problem.model("float32")
        run = training.Run(model, problem.corpus, recipe)
        run.make_steps(0, 0)
        times, resident, size = [], [], steps // WINDOWS
        for window in range(WINDOWS):
            began, goal = time.perf_counter(), (window + 1) * size
            while run.done < goal:
                training.advance(run, min(run.done + CHUNK, goal))
            times.append(1e6 * (time.perf_counter() - began) / size)
            resident.append(status("VmRSS"))
        loss = float(run.losses[run.done - size : run.done].mean())
        return {"microseconds": times, "resident": resident, "loss": loss}


def measure(quick: bool) -> dict:
    """A million steps; the last quarter of the windows against the first quarter."""
    steps = 100_000 if quick else 1_000_000
    with Client("benchmarks.length") as client:
        found = client.run(steps=steps)
    times, resident, part = found["microseconds"], found["resident"], WINDOWS // 4
    return {
        "steps": steps,
        "first": summary(times[:part]),
        "last": summary(times[-part:]),
        "ratio": ratio(sorted(times[-part:]), sorted(times[:part])),
        "grown": resident[-1] - resident[WINDOWS // 10],
        "loss": found["loss"],
    } | found


def table(result: dict) -> str:
    """The results as lines of text."""
    return (
        f"A run of {result['steps']:,} steps, float32: microseconds a step\n"
        f"  first quarter {spread(result['first'])}\n"
        f"  last quarter  {spread(result['last'])}\n"
        f"  last / first  {spread(result['ratio'], 3)}\n"
        f"  memory after a tenth and at the end: {result['grown'] / 1e6:+.1f} MB\n"
        f"  loss of the last twentieth {result['loss']:.4f}"
    )


if __name__ == "__main__":
    environment.settle(1)
    serve(Worker)
