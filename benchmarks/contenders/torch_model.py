"""PyTorch: as it is usually written, and with a whole step compiled into one call."""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F

from ..problem import BETA1, BETA2, EPS, LR, RMS_EPS
from .contender import Contender, adam_factors, steps_of

SWAP = ((0.0, 1.0), (1.0, 0.0))
PULL = ((1.0, -1.0), (-1.0, 1.0))  # SWAP + t PULL is the matrix that mixes the streams


def pack(weights: dict, n_layer: int) -> dict[str, np.ndarray]:
    """The book's parameters; embeddings by rows, query, key and value as one."""
    p = {name: weights[name] for name in ("lm_head", "contract")}
    p |= {name: weights[name].T for name in ("wte", "wpe")}
    for i in range(n_layer):
        p[f"{i}.qkv"] = np.vstack([weights[f"{i}.w{x}"] for x in "qkv"])
        names = [f"{i}.{x}" for x in ("wo", "fc1", "fc2")]
        for part in ("attn", "mlp"):
            names += [f"{i}.{part}.{x}" for x in ("theta", "alpha", "beta")]
        p |= {name: weights[name] for name in names}
    return p


def unpack(p: dict) -> dict[str, np.ndarray]:
    """The inverse of `pack`: gradients under the book's names."""
    w = {name: x.T if name in ("wte", "wpe") else x for name, x in p.items()}
    for name in [name for name in w if name.endswith(".qkv")]:
        for letter, part in zip("qkv", np.vsplit(w.pop(name), 3), strict=True):
            w[f"{name.removesuffix('qkv')}w{letter}"] = part
    return w


def attention(z, qkv, wo, B: int, n_head: int, spread: bool):
    """Causal attention of z (B T x C); `spread` writes products as sums, to fuse."""
    T, C = len(z) // B, z.shape[1]
    d = C // n_head
    q, k, v = F.linear(z, qkv).view(B, T, 3, n_head, d).transpose(1, 3).unbind(2)
    if spread:
        hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
        s = (q[..., :, None, :] * k[..., None, :, :]).sum(-1) * d**-0.5
        p = s.masked_fill(hidden, -float("inf")).softmax(-1)
        o = (p[..., None] * v[..., None, :, :]).sum(-2)
    else:
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.linear(o.transpose(1, 2).reshape(B * T, C), wo)


def answer(p, i: int, part: str, h, *heads):
    """What the attention or the MLP of layer i says to h (B T x C)."""
    z = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + RMS_EPS)
    if part == "attn":
        return attention(z, p[f"{i}.qkv"], p[f"{i}.wo"], *heads)
    return F.linear(F.relu(F.linear(z, p[f"{i}.fc1"])), p[f"{i}.fc2"])


@functools.cache
def mixers(dtype):
    """SWAP and PULL as tensors."""
    return torch.tensor(SWAP, dtype=dtype), torch.tensor(PULL, dtype=dtype)


def streams_by_products(p, x, sublayers, call):
    """All sublayers in few operations: the streams are the two rows of a matrix."""
    swap, pull = mixers(x.dtype)
    s = x.reshape(1, -1).expand(2, -1)
    for i, part in sublayers:
        theta, alpha, beta = (p[f"{i}.{part}.{g}"] for g in ("theta", "alpha", "beta"))
        mixed = torch.addcmul(swap, theta.sigmoid(), pull) @ s
        y = call(i, part, (alpha @ mixed).view(x.shape))
        s = torch.addr(mixed, beta, y.reshape(-1))
    return (p["contract"] @ s).view(x.shape)


def streams_by_elements(p, x, sublayers, call):
    """The same an element at a time, which a compiler fuses with its neighbours."""
    a = b = x
    for i, part in sublayers:
        theta, alpha, beta = (p[f"{i}.{part}.{g}"] for g in ("theta", "alpha", "beta"))
        t = theta.sigmoid()
        a, b = t * a + (1 - t) * b, (1 - t) * a + t * b
        y = call(i, part, alpha[0] * a + alpha[1] * b)
        a, b = a + beta[0] * y, b + beta[1] * y
    return p["contract"][0] * a + p["contract"][1] * b


class Torch(Contender):
    """What eager and compiled share: flat buffers and the forward pass."""

    compiled = False

    def __init__(self, problem):
        super().__init__(problem)
        torch.set_num_threads(self.setting.threads)
        self.dtype = getattr(torch, self.setting.dtype)
        p = pack(problem.weights, self.setting.n_layer)
        self.shapes = {name: x.shape for name, x in p.items()}
        flat = np.concatenate([x.reshape(-1) for x in p.values()])
        self.start = torch.tensor(flat, dtype=self.dtype)
        layers = range(self.setting.n_layer)
        self.sublayers = [(i, part) for i in layers for part in ("attn", "mlp")]

    def views(self, flat) -> dict:
        """The parameters by name, as views into a flat buffer."""
        parts = flat.split([math.prod(shape) for shape in self.shapes.values()])
        shaped = zip(self.shapes.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in shaped}

    def loss(self, p, inputs, targets, share=None):
        """Mean cross-entropy; inputs (B x T), targets and the `share` of each (B T)."""
        B, T = inputs.shape
        heads = B, self.setting.n_head, self.compiled and T <= 16

        def call(i, part, h):
            return answer(p, i, part, h, *heads)

        x = (F.embedding(inputs, p["wte"]) + p["wpe"][:T]).view(B * T, -1)
        walk = streams_by_elements if self.compiled else streams_by_products
        logits = F.linear(walk(p, x, self.sublayers, call), p["lm_head"])
        if share is None:
            return F.cross_entropy(logits, targets)
        log_p = logits.log_softmax(1).gather(1, targets[:, None])
        return -(log_p[:, 0] * share).sum()

    def padded_row(self, documents, width: int):
        """Inputs (B x width), targets and each position's share of the mean loss."""
        B, bos = len(documents), self.problem.corpus.bos
        tokens = torch.full((B, width + 1), bos, dtype=torch.int64)
        share = torch.zeros(B, width, dtype=self.dtype)
        for row, part, ids in zip(tokens, share, documents, strict=True):
            row[: len(ids)] = torch.as_tensor(ids)
            part[: len(ids) - 1] = 1 / (B * (len(ids) - 1))
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)
        return inputs, targets, share.view(-1)

    def reset(self):
        self.weights = self.start.clone()
        self.gradient, self.m, self.v = (torch.zeros_like(self.start) for _ in range(3))


class Eager(Torch):
    """Unpadded documents, `backward()` into one flat buffer, the fused Adam on it."""

    @functools.cache  # noqa: B019 (a worker has one contender and ends with it)
    def rows(self, steps: int) -> list:
        """Arguments of `loss` for every step; a batch is padded to its longest."""
        batches = steps_of(self.problem, steps)
        if self.setting.batch_size == 1:
            return [self.padded_row(b, len(b[0]) - 1)[:2] for b in batches]
        longest = (max(map(len, batch)) - 1 for batch in batches)
        pairs = zip(batches, longest, strict=True)
        return [self.padded_row(batch, width) for batch, width in pairs]

    def reset(self):
        super().reset()
        self.leaves = {}
        grads = self.views(self.gradient)
        for name, x in self.views(self.weights).items():
            self.leaves[name] = x.detach().requires_grad_()
            self.leaves[name].grad = grads[name]

    def gradients(self, *row):
        """The loss of a step; its gradient is left in the flat buffer."""
        self.gradient.zero_()
        loss = self.loss(self.leaves, *row)
        loss.backward()
        return loss.detach()

    def loss_and_grads(self, tokens):
        self.reset()
        loss = self.gradients(*self.padded_row([tokens], len(tokens) - 1)[:2])
        grads = {name: x.numpy() for name, x in self.views(self.gradient).items()}
        return float(loss), {k: x.copy() for k, x in unpack(grads).items()}

    def run(self, steps):
        losses, count = [], torch.tensor(0.0)
        buffers = [[x] for x in (self.weights, self.gradient, self.m, self.v)]
        constants = dict(beta1=BETA1, beta2=BETA2, eps=EPS, weight_decay=0.0)
        for i, row in enumerate(self.rows(steps)):
            losses.append(self.gradients(*row))
            count += 1
            torch._fused_adam_(
                *buffers, [], [count], lr=LR * (1 - i / steps), **constants,
                amsgrad=False, maximize=False,
            )  # fmt: skip
        return torch.stack(losses).numpy()


class Compiled(Torch):
    """Loss, gradient and Adam as one C++ function, for a few padded lengths."""

    compiled = True

    def __init__(self, problem):
        super().__init__(problem)
        torch.set_grad_enabled(False)  # torch.func takes the gradient itself
        import torch._inductor.config as inductor

        inductor.cpp_wrapper = True
        inductor.cpp.threads = self.setting.threads
        self.compiled_step = torch.compile(self.step, fullgraph=True, dynamic=False)

    def gradient_of(self, flat, inputs, targets, share):
        """Flat gradient and loss of padded tokens."""

        def loss(w):
            return self.loss(self.views(w), inputs, targets, share)

        return torch.func.grad_and_value(loss)(flat)

    def step(self, w, m, v, inputs, targets, share, rate, unbias):
        """One step in place; returns the loss."""
        g, loss = self.gradient_of(w, inputs, targets, share)
        m.mul_(BETA1).add_(g, alpha=1 - BETA1)
        v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
        w.sub_(rate * m / ((v * unbias).sqrt() + EPS))
        return loss

    def width(self, documents) -> int:
        """The padded length of a step: 8, 12, 16 or block_size."""
        longest = max(map(len, documents)) - 1
        small = (8, 16) if self.setting.batch_size == 1 else (12, 16)
        fits = [n for n in small if longest <= n < self.setting.block_size]
        return (fits or [self.setting.block_size])[0]

    @functools.cache  # noqa: B019
    def rows(self, steps: int) -> list:
        """Inputs, targets, shares and Adam's two factors of every step."""
        factors = zip(*adam_factors(steps), strict=True)
        rows = []
        for documents, pair in zip(steps_of(self.problem, steps), factors, strict=True):
            tensors = (torch.tensor(x, dtype=self.dtype) for x in pair)
            row = self.padded_row(documents, self.width(documents))
            rows.append((*row, *tensors))
        return rows

    def loss_and_grads(self, tokens):
        """Read off the timed step itself: its first m is (1 - beta1) gradient."""
        self.reset()
        row = self.padded_row([tokens], self.width([tokens]))
        one = torch.ones((), dtype=self.dtype)
        loss = self.compiled_step(self.weights, self.m, self.v, *row, one, one)
        g = self.views(self.m / (1 - BETA1))
        return float(loss), unpack({name: x.numpy() for name, x in g.items()})

    def prepare(self, steps):
        """Compile one step for every width; afterwards nothing has to be guarded."""
        seen = {row[0].shape: row for row in self.rows(steps)}
        for row in seen.values():
            self.reset()
            self.compiled_step(self.weights, self.m, self.v, *row)

    def run(self, steps):
        w, m, v, step = self.weights, self.m, self.v, self.compiled_step
        with torch.compiler.set_stance("default", skip_guard_eval_unsafe=True):
            losses = [step(w, m, v, *row) for row in self.rows(steps)]
        return torch.stack(losses).numpy()
