"""Numbers that count what is done with them, and the calls of a training step.

The kernels run here as plain Python on arrays whose elements are such numbers, so that
what is counted is what the code does, the padding of its tiles included.
"""

import collections
import json
import math
import sys
from pathlib import Path

import numpy as np

COUNTS = collections.Counter()
FLOP = ("add", "sub", "mul")  # what a multiply-add unit does
COMPARE = ("lt", "le", "gt", "ge")


class Number(np.float32):
    """A float32 that counts the operations in which it takes part."""


def counted(name: str):
    """The method `name` of Number: float32's own, and one more in COUNTS."""
    method, kind = getattr(np.float32, f"__{name}__"), name.removeprefix("r")
    kind = "flop" if kind in FLOP else "compare" if kind in COMPARE else kind

    def operate(self, *other):
        COUNTS[kind] += 1
        result = method(self, *other)
        return Number(result) if isinstance(result, np.floating) else result

    return operate


for name in ("add", "sub", "mul", "truediv"):
    for side in ("", "r"):
        setattr(Number, f"__{side}{name}__", counted(side + name))
for name in (*COMPARE, "neg"):
    setattr(Number, f"__{name}__", counted(name))


class Counting(np.ndarray):
    """An array whose elements are `Number`s when they are read one by one."""

    def __getitem__(self, key):
        found = super().__getitem__(key)
        return Number(found) if isinstance(found, np.floating) else found


def count_function(module, name: str, kind: str) -> None:
    """Have each call of module.name counted, and give a Number for a Number."""
    function = getattr(module, name)

    def call(x):
        COUNTS[kind] += 1
        result = function(x)
        return Number(result) if isinstance(x, Number) else result

    setattr(module, name, call)


class Recorder:
    """Decorates kernels: notes those calls that no other kernel makes."""

    def __init__(self):
        self.calls, self.arrays, self.inside = [], {}, False

    def __call__(self, function):
        def call(*arguments):
            if self.inside:
                return function(*arguments)
            told = [self.describe(x) for x in arguments]
            before, self.inside = COUNTS.copy(), True
            result = function(*arguments)
            self.inside = False
            found = {"kernel": function.__name__, "module": function.__module__}
            found |= {"arguments": told, "counts": dict(COUNTS - before)}
            self.calls.append(found | {"returns": result is not None})
            return result

        return call

    def describe(self, x):
        """An argument as JSON: an array's name, a tuple's members, or a scalar."""
        if isinstance(x, np.ndarray):
            key = str(len(self.arrays))
            self.arrays[key] = np.array(x, order="K")
            turned = x.ndim == 2 and not x.flags.f_contiguous
            return {"array": key, "turned": turned, "bytes": x.nbytes}
        if hasattr(x, "_fields"):
            kind = f"{type(x).__module__}.{type(x).__name__}"
            return {"tuple": kind, "members": [self.describe(y) for y in x]}
        scalar = x.item() if isinstance(x, np.generic) else x
        return {"scalar": scalar, "float32": isinstance(x, np.float32)}


def record_kernels() -> Recorder:
    """Import the package so that its kernels tell a Recorder; without a compiler."""
    import numba

    assert numba.config.DISABLE_JIT, "set NUMBA_DISABLE_JIT=1"
    recorder, plain = Recorder(), numba.njit

    def njit(*args, **options):
        decorate = plain(*args, **options)
        return recorder if options.get("noalias") else decorate

    numba.njit = njit
    import microgpt.flash
    import microgpt.matrix

    numba.njit = plain
    count_function(microgpt.matrix, "exp_float32", "exp")
    count_function(microgpt.flash, "exp_negative_float32", "exp")
    for name in ("sqrt", "log", "exp"):
        count_function(math, name, name)
    return recorder


def record_step(setting: dict, document: int) -> Recorder:
    """The kernels' calls in one training step on a document, float32."""
    recorder = record_kernels()  # before anything else imports the package
    from microgpt import model as module
    from microgpt.training import adam

    from .problem import Problem, Setting

    problem = Problem(Setting(**setting))
    model = problem.model("float32")

    def counting(shapes):
        flat = np.zeros(module.count(shapes), "float32").view(Counting)
        return flat, module.views(flat, shapes)

    c = model.config
    own = module.parameter_shapes(c)
    (weights, p), (gradient, g), (m, _), (v, _) = (counting(own) for _ in range(4))
    weights[:] = model.weights
    model.parameters, model.gradients, model.gradient = p, g, gradient
    _, model.activations = counting(module.activation_shapes(c))
    _, model.workspace = counting(module.workspace_shapes(c))
    model.loss_and_grads(problem.tokens(document, 1)[0])
    adam(weights, gradient, m, v, 1, 0.01, 0.85, 0.99, 1e-8)
    return recorder


def main(folder: str, setting: str, document: str) -> None:
    """Write calls.json and arrays.npz into a folder."""
    recorder = record_step(json.loads(setting), int(document))
    text = json.dumps(recorder.calls)
    (Path(folder) / "calls.json").write_text(text, encoding="utf-8")
    np.savez(Path(folder) / "arrays.npz", **recorder.arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
