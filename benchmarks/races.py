"""The training races: which settings, who runs in each."""

import dataclasses
import itertools

from . import contenders, machine, race
from .race import Race

QUICK = (
    "book_f32",
    "book_f64",
    "numpy_plain_f64",
    "numpy_tuned_f32",
    "torch_eager_f32",
    "torch_compiled_f32",
    "jax_scan_f32",
    "scalars_f64",
)
LARGE = {"n_embd": 64, "block_size": 64, "n_layer": 2, "documents": "full"}
FRAMEWORKS = ("torch_eager_f32", "torch_compiled_f32", "jax_step_f32", "jax_scan_f32")
BATCHES = ("book_f32", "torch_eager_f32", "torch_compiled_f32", "jax_scan_f32")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Who takes part, how thoroughly, and how many threads the machine can give."""

    names: tuple[str, ...]
    quick: bool
    threads: int

    def without(self, check: dict) -> "Plan":
        """The plan less those whose gradients were found to differ."""
        wrong = {name for name, row in check["rows"].items() if not row["same"]}
        names = tuple(name for name in self.names if name not in wrong)
        return dataclasses.replace(self, names=names)


def plan(names=None, quick: bool = False) -> Plan:
    """A plan; ValueError, in one line, for a name that is no contender's."""
    for name in names or ():
        contenders.entry(name)
    chosen = names or (QUICK if quick else contenders.NAMES)
    return Plan(tuple(chosen), quick, min(2, machine.cores()))


def races(plan: Plan) -> list[Race]:
    """The races of a plan; only the first has all its contenders."""
    if plan.quick:
        return [Race("seed", plan.names, {}, 200, 3)]
    found = [Race("seed", plan.names, {})]
    found.append(Race("large", ("book_f32", *FRAMEWORKS), LARGE, 30))
    for size, threads in itertools.product((16, 32), range(1, plan.threads + 1)):
        setting = {"batch_size": size, "threads": threads}
        title = f"batch {size}, {threads} thread(s)"
        found.append(Race(title, BATCHES, setting, 1600 // size))
    others = set(contenders.NAMES) - set(plan.names)
    return [without(r, others) for r in found]


def without(r: Race, names: set[str]) -> Race:
    """A race less some contenders."""
    left = tuple(name for name in r.names if name not in names)
    return dataclasses.replace(r, names=left)


def measure(plan: Plan) -> dict:
    """Run them one after the other."""
    words = {name: contenders.entry(name)[0].words for name in plan.names}
    return {"words": words, "races": [race.run(r) for r in races(plan)]}


def table(result: dict) -> str:
    """All of them as lines of text."""
    return "\n".join(race.table(found) for found in result["races"])
