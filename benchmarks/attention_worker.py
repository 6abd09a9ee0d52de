"""Attention alone, the book's or PyTorch's, in a process of its own.

python -m benchmarks.attention_worker torch --threads 1 --serve
"""

import argparse
import functools
import sys
import time

from . import environment, variants
from .pipes import serve

N_HEAD = 4
KINDS = ("book", "torch")


class Book:
    """`flash_attention` and its backward pass; q, k, v are (C x N), column-major."""

    def __init__(self, threads: int):
        import microgpt

        self.naive = microgpt.naive_attention
        self.naive_backward = microgpt.naive_attention_backward
        self.flash = functools.partial(microgpt.flash_attention, threads=threads)
        self.flash_backward = functools.partial(
            microgpt.flash_attention_backward, threads=threads
        )

    def load(self, arrays, tile) -> None:
        """Take q, k, v, do, each (N x C); tile None stands for the default."""
        import numpy as np

        self.inputs = [np.asfortranarray(x.T) for x in arrays]
        self.tile = {} if tile is None else {"tile": tile}

    def forward(self):
        """o (C x N), and what the backward pass needs besides."""
        *qkv, _ = self.inputs
        return self.flash(*qkv, N_HEAD, **self.tile)

    def both(self):
        """o, dq, dk, dv."""
        *qkv, do = self.inputs
        found = self.forward()
        back = self.flash_backward(do, *qkv, *found, N_HEAD, **self.tile)
        return found[0], *back

    def naive_forward(self):
        """o by the version that keeps all probabilities."""
        return self.naive(*self.inputs[:3], N_HEAD)

    def naive_both(self):
        """o, dq, dk, dv by the version that keeps all probabilities."""
        *qkv, do = self.inputs
        o, p = self.naive_forward()
        return o, *self.naive_backward(do, *qkv, p, N_HEAD)

    def arrays(self, results) -> list:
        """Results as (N x C)."""
        return [x.T for x in results[:4] if x.ndim == 2]


class Torch:
    """`scaled_dot_product_attention`; q, k, v are (1, heads, N, d)."""

    def __init__(self, threads: int):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch

    def load(self, arrays, tile) -> None:
        """Take q, k, v, do, each (N x C); there is no tile to choose."""
        split = (x.reshape(len(x), N_HEAD, -1).swapaxes(0, 1)[None] for x in arrays)
        self.inputs = [self.torch.tensor(x.copy()) for x in split]

    def attend(self, q, k, v):
        """o (1, heads, N, d)."""
        from torch.nn.functional import scaled_dot_product_attention

        return scaled_dot_product_attention(q, k, v, is_causal=True)

    def forward(self):
        """o alone, without a record for a backward pass."""
        with self.torch.no_grad():
            return (self.attend(*self.inputs[:3]),)

    def both(self):
        """o, dq, dk, dv."""
        *qkv, do = self.inputs
        qkv = [x.detach().requires_grad_() for x in qkv]
        o = self.attend(*qkv)
        return o.detach(), *self.torch.autograd.grad(o, qkv, do)

    def arrays(self, results) -> list:
        """Results as (N x C)."""
        rows = (x[0].numpy().swapaxes(0, 1) for x in results)
        return [x.reshape(len(x), -1) for x in rows]


class Worker:
    """Answers the driver's commands."""

    def __init__(self, kind: str, threads: int):
        self.side = {"book": Book, "torch": Torch}[kind](threads)

    def load(self, n, d, tile=None, seed=1) -> dict:
        """Draw q, k, v, do of n positions and 4 heads of size d, float32."""
        import numpy as np

        rng = np.random.default_rng(seed)
        arrays = rng.standard_normal((4, n, N_HEAD * d), "float32")
        self.side.load(arrays, tile)
        return {}

    def time(self, what, repeat=1) -> dict:
        """Mean seconds of `repeat` calls of forward, both, naive_forward, ..."""
        action = getattr(self.side, what)
        began = time.perf_counter()
        for _ in range(repeat):
            action()
        return {"seconds": (time.perf_counter() - began) / repeat}

    def save(self, what, path) -> dict:
        """The results of a call, as (N x C) arrays in a file."""
        import numpy as np

        results = self.side.arrays(getattr(self.side, what)())
        np.savez(path, *results)
        return {}

    def memory(self, what) -> dict:
        """Bytes by which the process grows, at most, during one call."""
        from .memory import Peak

        with Peak() as peak:
            results = getattr(self.side, what)()
        size = sum(x.nbytes for x in results)
        return {"bytes": peak.bytes, "results": size, "method": peak.method}


def main(argv=None) -> int:
    """Serve; 2 after a mistake, told in one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention_worker")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", choices=variants.VARIANTS)
    parser.add_argument("--serve", action="store_true", required=True)
    args = parser.parse_args(argv)
    environment.pin(args.threads)
    variants.apply(args.variant)
    serve(lambda: Worker(args.kind, args.threads))
    return 0


if __name__ == "__main__":
    sys.exit(main())
