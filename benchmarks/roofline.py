"""The machine's limits, by kernels of our own, and where the book's kernels lie below.

The roofs: multiply-adds a second, and bytes a second from each cache level and from
memory, on one core. A kernel has operations and bytes; the bytes are those that must be
moved if every array is read or written once.
"""

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

import microgpt
from microgpt.matrix import column_major, matmul
from microgpt.rmsnorm import rmsnorm
from microgpt.training import adam

from . import anatomy, environment, machine
from .attention import N_HEAD, operations
from .clock import seconds
from .pipes import Client, serve
from .problem import Problem, Setting

SIZES = (256, 16), (1024, 64)  # of attention: positions, features of a head
CHAINS, STEPS = 8, 16  # independent chains of dependent multiply-adds


def multiply_add(x, a, b, times):
    """x becomes a x + b, STEPS at a time, `times` times; x: (CHAINS, n), in a cache."""
    for _ in range(times):
        for i in range(x.shape[1]):
            c0, c1, c2, c3 = x[0, i], x[1, i], x[2, i], x[3, i]
            c4, c5, c6, c7 = x[4, i], x[5, i], x[6, i], x[7, i]
            for _ in range(STEPS):
                c0, c1, c2, c3 = c0 * a + b, c1 * a + b, c2 * a + b, c3 * a + b
                c4, c5, c6, c7 = c4 * a + b, c5 * a + b, c6 * a + b, c7 * a + b
            x[0, i], x[1, i], x[2, i], x[3, i] = c0, c1, c2, c3
            x[4, i], x[5, i], x[6, i], x[7, i] = c4, c5, c6, c7


options = {"nogil": True, "error_model": "numpy"}
fused = numba.njit(fastmath={"contract"}, **options)(multiply_add)
strict = numba.njit(**options)(multiply_add)  # as the book's: rounded twice


@numba.njit(error_model="numpy")
def divide(x, times):
    """x becomes 1 / x, `times` times."""
    for _ in range(times):
        for i in range(x.shape[0]):
            x[i] = 1 / x[i]


@numba.njit(error_model="numpy")
def take_roots(x, times):
    """x becomes its square root, `times` times."""
    for _ in range(times):
        for i in range(x.shape[0]):
            x[i] = math.sqrt(x[i])


@numba.njit(fastmath=True, error_model="numpy")
def read(x, times):
    """Add up x (float32) `times` times: nothing but loads, one addition each."""
    for k in range(times):
        total = np.float32(0)
        for i in range(x.shape[0]):
            total += x[i]
        x[k % x.shape[0]] = total  # so that no sum can be left out


def peak_gflops(dtype: str, threads: int = 1, multiply_add=fused) -> float:
    """Multiplications and additions a second, in units of 1e9."""
    number, times = np.dtype(dtype).type, 4000
    a, b = number(0.999), number(0.001)
    blocks = [np.ones((CHAINS, 128), dtype) for _ in range(threads)]
    multiply_add(blocks[0], a, b, 1)
    with ThreadPoolExecutor(threads) as pool:

        def action():
            list(pool.map(lambda x: multiply_add(x, a, b, times), blocks))

        took = seconds(action)
    return threads * blocks[0].size * STEPS * times * 2 / took / 1e9


def giga(function, n: int = 1024, times: int = 100) -> float:
    """Numbers a second, in units of 1e9, that a function of one core gets through."""
    x = np.full(n, 1.5, "float32")
    return n * times / seconds(lambda: function(x, times)) / 1e9


def bandwidths(caches: dict[str, int]) -> dict[str, float]:
    """GB/s read by one core from an array that half fills a cache, and from memory.

    A quarter of the third level, which others share.
    """
    sizes = {
        level: size // (4 if level == "L3" else 2) for level, size in caches.items()
    }
    sizes["memory"] = min(8 * max(caches.values()), 512 << 20)
    found = {}
    for level, size in sizes.items():
        x = column_major(size // 4, dtype="float32")
        x[:] = 1
        times = max(1, (64 << 20) // size)
        took = seconds(lambda x=x, times=times: read(x, times))
        found[level] = size * times / took / 1e9
    return found


def attention_points(rng, n: int, d: int) -> list[dict]:
    """Naive and tiled attention, forward and backward."""
    q, k, v, do = (matrix(rng, N_HEAD * d, n) for _ in range(4))
    flash, naive = microgpt.flash_attention, microgpt.naive_attention
    (*kept,), (_, p) = flash(q, k, v, N_HEAD), naive(q, k, v, N_HEAD)
    backward = microgpt.flash_attention_backward, microgpt.naive_attention_backward
    calls = (
        ("flash forward", flash, (q, k, v)),
        ("flash backward", backward[0], (do, q, k, v, *kept)),
        ("naive forward", naive, (q, k, v)),
        ("naive backward", backward[1], (do, q, k, v, p)),
    )
    return [
        attention_point(name, lambda f=f, a=a: f(*a, N_HEAD), n, d)
        for name, f, a in calls
    ]


def attention_point(name: str, call, n: int, d: int) -> dict:
    """One attention kernel; the naive one also moves its probabilities."""
    forward = operations(n, d, "forward")
    flop = forward if "forward" in name else operations(n, d, "both") - forward
    x, p = 4 * N_HEAD * d * n, 4 * N_HEAD * n * n
    moved = 4 * x if "forward" in name else 8 * x
    moved += p * (3 if "forward" in name else 6) if "naive" in name else 0
    return point(f"{name}, N {n}, d {d}", flop, moved, seconds(call, rounds=15))


def matrix(rng, rows: int, columns: int) -> np.ndarray:
    """A column-major float32 matrix of normal numbers."""
    return np.asfortranarray(rng.standard_normal((rows, columns), "float32"))


def point(name: str, flop: float, moved: float, took: float) -> dict:
    """A kernel in the plot: operations a byte, and operations a second."""
    return {
        "name": name,
        "flop": flop,
        "bytes": moved,
        "seconds": took,
        "intensity": flop / moved,
        "gflops": flop / took / 1e9,
    }


def parts_points(rng) -> list[dict]:
    """Single kernels of the package."""
    m, n = 64, 256
    w, x, y = matrix(rng, m, m), matrix(rng, m, n), matrix(rng, m, n)
    r = np.zeros(n, "float32")
    flat = [np.full(size, 0.01, "float32") for size in (4204,) * 4]
    wide = [np.full(size, 0.01, "float32") for size in (1 << 22,) * 4]
    rest = (1, 0.01, 0.85, 0.99, 1e-8)
    rows = (
        ("matmul 64 x 64 x 256", 2 * m * m * n, 4 * m * (m + 2 * n),
         matmul, (w, x, y)),
        ("rmsnorm 64 x 256", 4 * m * n, 8 * m * n, rmsnorm, (x, y, r)),
        ("Adam, 4,204 numbers", 12 * 4204, 28 * 4204, adam, (*flat, *rest)),
        ("Adam, 4 million", 12 << 22, 28 << 22, adam, (*wide, *rest)),
    )  # fmt: skip
    return [
        point(name, flop, moved, seconds(lambda f=f, a=a: f(*a)))
        for name, flop, moved, f, a in rows
    ]


def step_operations(setting: Setting, T: float, size: int) -> float:
    """Operations of a training step of T positions; `size` parameters in all."""
    C, V, L = setting.n_embd, 27, setting.n_layer
    linear = 3 * 2 * T * (12 * C * C * L + V * C)  # forward, and twice for gradients
    attention = 7 * 2 * C * L * T * (T + 1) / 2
    elements = T * C * (L * 2 * 40 + 4) + 6 * T * V  # streams, norms, softmax: about
    return linear + attention + elements + 12 * size


def step_point(setting: Setting, steps: int) -> dict:
    """The whole training step through `microgpt.train`; bytes: what Adam moves."""
    problem = Problem(setting)
    model = problem.model(setting.dtype)

    def action():
        microgpt.train(model, problem.corpus, steps, lr=1e-6)

    took = seconds(action, rounds=5) / steps
    lengths = [len(ids) - 1 for ids in problem.tokens(0, steps)]
    flop = step_operations(setting, sum(lengths) / steps, model.weights.size)
    moved = 7 * model.weights.nbytes
    return point(f"training step, {setting.label()}", flop, moved, took)


def limits(threads: int) -> dict:
    """Peaks and bandwidths; afterwards this process keeps to one core."""
    together = peak_gflops("float32", threads)
    environment.pin(1)
    caches = machine.caches()
    return {
        "gflops": {dtype: peak_gflops(dtype) for dtype in ("float32", "float64")},
        "gflops_threads": {str(threads): together},
        "strict_gflops": peak_gflops("float32", multiply_add=strict),
        "giga": {"truediv": giga(divide), "sqrt": giga(take_roots)},
        "gbytes": bandwidths(caches),
        "caches": caches,
    }


class Worker:
    """Answers the driver's one command."""

    def __init__(self, threads: int):
        self.threads = threads

    def measure(self) -> dict:
        """Roofs and kernels."""
        roofs, rng = limits(self.threads), np.random.default_rng(1)
        large = Setting(n_embd=64, block_size=64, n_layer=2, documents="full")
        rows = (Setting(), 1000), (Setting(dtype="float64"), 1000), (large, 50)
        steps = [step_point(setting, count) for setting, count in rows]
        attention = [p for n, d in SIZES for p in attention_points(rng, n, d)]
        points = [*attention, *parts_points(rng), *steps]
        step = anatomy.measure(roofs)
        return {"limits": roofs, "kernels": points, "step": step}


def measure(threads: int) -> dict:
    """Roofs and kernels, measured in a fresh process."""
    with Client("benchmarks.roofline", str(threads), threads=threads) as client:
        return client.measure()


def table(result: dict) -> str:
    """The results as lines of text."""
    limits = result["limits"]
    lines = ["Limits of one core, measured:"]
    lines += [f"  {t} {g:.0f} GFLOP/s" for t, g in limits["gflops"].items()]
    for count, g in limits["gflops_threads"].items():
        lines.append(f"  float32, {count} thread(s) {g:.0f} GFLOP/s")
    lines.append(f"  float32, each rounded {limits['strict_gflops']:.0f} GFLOP/s")
    lines += [f"  {name} {g:.1f} 1e9 a second" for name, g in limits["giga"].items()]
    lines += [f"  {level} {g:.0f} GB/s" for level, g in limits["gbytes"].items()]
    lines.append("Kernels: GFLOP/s, operations a byte, microseconds")
    for k in result["kernels"]:
        numbers = f"{k['gflops']:7.1f} {k['intensity']:8.2f} {1e6 * k['seconds']:12.2f}"
        lines.append(f"  {k['name']:52} {numbers}")
    return "\n".join([*lines, anatomy.table(result["step"])])


if __name__ == "__main__":
    serve(lambda: Worker(int(sys.argv[1])))
