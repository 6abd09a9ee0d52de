"""NumPy with as few and as cheap calls as possible.

At this size a call costs a microsecond, whatever it computes. Hence:
positions x features; parameters, gradients and Adam's means in flat buffers; the two
streams as the rows of one matrix, so that mixing is a product; one product for query,
key and value; all heads at once; results written in place.
"""

import math

import numpy as np

from ..problem import BETA1, BETA2, EPS, RMS_EPS
from .contender import Contender, adam_factors, steps_of

SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])
PULL = np.array([[1.0, -1.0], [-1.0, 1.0]])  # A = SWAP + t PULL


def layout(weights, n_layer: int) -> dict:
    """Names and shapes in the flat buffer: embeddings by rows, wq, wk, wv as one."""
    C, V = weights["wte"].shape
    shapes = {"wte": (V, C), "wpe": weights["wpe"].T.shape, "lm_head": (V, C)}
    for i in range(n_layer):
        shapes |= {f"{i}.qkv": (3, C, C), f"{i}.wo": (C, C)}
        shapes |= {f"{i}.fc1": (4 * C, C), f"{i}.fc2": (C, 4 * C)}
        for part in ("attn", "mlp"):
            sizes = {"theta": (1,), "alpha": (2,), "beta": (2,)}
            shapes |= {f"{i}.{part}.{x}": size for x, size in sizes.items()}
    return shapes | {"contract": (2,)}


def views(flat, shapes) -> dict:
    """Arrays by name, views into `flat`."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    parts = np.split(flat, ends[:-1])
    pairs = zip(shapes.items(), parts, strict=True)
    return {name: part.reshape(shape) for (name, shape), part in pairs}


def book_names(p, n_layer: int) -> dict:
    """The same arrays under the book's names and in its shapes; still views."""
    turned = ("wte", "wpe")
    named = {k: x.T if k in turned else x for k, x in p.items() if ".qkv" not in k}
    for i in range(n_layer):
        pairs = zip(("wq", "wk", "wv"), p[f"{i}.qkv"], strict=True)
        named |= {f"{i}.{x}": w for x, w in pairs}
    return named


class Attention:
    """Causal attention of one layer, all heads in each call; keeps what it needs."""

    def __init__(self, p, g, i, n_head, masks):
        C = p["wte"].shape[1]
        self.n_head, self.masks, self.d = n_head, masks, C // n_head
        self.qkv, self.wo = p[f"{i}.qkv"].reshape(3 * C, C), p[f"{i}.wo"]
        self.dqkv, self.dwo = g[f"{i}.qkv"].reshape(3 * C, C), g[f"{i}.wo"]
        self.scale = self.wo.dtype.type(self.d**-0.5)

    def forward(self, z):
        """y from z, both (T x C)."""
        T, C = z.shape
        self.z = z
        x = (z @ self.qkv.T).reshape(T, 3, self.n_head, self.d)
        self.q, self.k, self.v = x.transpose(1, 2, 0, 3)
        self.q *= self.scale
        p = self.q @ self.k.transpose(0, 2, 1)
        p += self.masks[T]
        p -= p.max(axis=2, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=2, keepdims=True)
        self.p = p
        self.o = (p @ self.v).transpose(1, 0, 2).reshape(T, C)
        return self.o @ self.wo.T

    def backward(self, dy):
        """dz from dy; the weights' gradients are written."""
        T, C = dy.shape
        np.matmul(dy.T, self.o, out=self.dwo)
        do = (dy @ self.wo).reshape(T, self.n_head, self.d).transpose(1, 0, 2)
        ds = do @ self.v.transpose(0, 2, 1)
        ds *= self.p
        ds -= self.p * ds.sum(axis=2, keepdims=True)
        d = np.empty((T, 3, self.n_head, self.d), dy.dtype)
        dq, dk, dv = d.transpose(1, 2, 0, 3)
        np.matmul(ds, self.k, out=dq)
        dq *= self.scale
        np.matmul(ds.transpose(0, 2, 1), self.q, out=dk)
        np.matmul(self.p.transpose(0, 2, 1), do, out=dv)
        d = d.reshape(T, 3 * C)
        np.matmul(d.T, self.z, out=self.dqkv)
        return d @ self.qkv


class Mlp:
    """The MLP of one layer."""

    def __init__(self, p, g, i):
        self.w1, self.w2 = p[f"{i}.fc1"], p[f"{i}.fc2"]
        self.dw1, self.dw2 = g[f"{i}.fc1"], g[f"{i}.fc2"]

    def forward(self, z):
        """y from z, both (T x C)."""
        self.z, self.u = z, z @ self.w1.T
        np.maximum(self.u, 0, out=self.u)
        return self.u @ self.w2.T

    def backward(self, dy):
        """dz from dy; the weights' gradients are written."""
        np.matmul(dy.T, self.u, out=self.dw2)
        df = dy @ self.w2
        df *= self.u > 0
        np.matmul(df.T, self.z, out=self.dw1)
        return df @ self.w1


class Sublayer:
    """Streams (2 x T C) through mixing, norm, attention or MLP, and distribution."""

    def __init__(self, p, g, name, block):
        kinds = ("theta", "alpha", "beta")
        self.theta, self.alpha, self.beta = (p[f"{name}.{x}"] for x in kinds)
        self.dtheta, self.dalpha, self.dbeta = (g[f"{name}.{x}"] for x in kinds)
        self.block, self.C = block, p["wte"].shape[1]
        self.swap, self.pull = (x.astype(self.theta.dtype) for x in (SWAP, PULL))

    def forward(self, s):
        """The streams after this sublayer, a fresh array."""
        self.s, self.t = s, 1 / (1 + math.exp(-self.theta[0]))
        self.A = self.swap + self.theta.dtype.type(self.t) * self.pull
        self.m = self.A @ s
        h = (self.alpha @ self.m).reshape(-1, self.C)
        self.r = 1 / np.sqrt(np.vecdot(h, h) / h.dtype.type(self.C) + RMS_EPS)
        self.r = self.r.astype(h.dtype)[:, None]
        self.z = np.multiply(h, self.r, out=h)
        self.y = self.block.forward(self.z).reshape(-1)
        return self.m + np.multiply.outer(self.beta, self.y)

    def backward(self, ds):
        """The streams' gradient before this sublayer; ds is overwritten."""
        np.matmul(ds, self.y, out=self.dbeta)
        dz = self.block.backward((self.beta @ ds).reshape(self.z.shape))
        mean = np.vecdot(self.z, dz)[:, None] / dz.dtype.type(self.C)
        dz -= self.z * mean
        dz *= self.r
        dh = dz.reshape(-1)
        np.matmul(self.m, dh, out=self.dalpha)
        ds += np.multiply.outer(self.alpha, dh)
        dA = ds @ self.s.T
        self.dtheta[0] = np.vdot(dA, self.pull) * self.t * (1 - self.t)
        return self.A @ ds


class Tuned(Contender):
    """One document a step."""

    batches = False

    def __init__(self, problem):
        super().__init__(problem)
        shapes = layout(problem.weights, self.setting.n_layer)
        size = sum(math.prod(shape) for shape in shapes.values())
        buffers = np.zeros((5, size), self.setting.dtype)
        self.w, self.g, self.m, self.v, self.scratch = buffers
        self.p, self.dp = views(self.w, shapes), views(self.g, shapes)
        N, n_head = self.setting.block_size, self.setting.n_head
        mask = np.triu(np.full((N, N), -np.inf, self.setting.dtype), 1)
        masks = [mask[:T, :T] for T in range(N + 1)]
        self.sublayers = []
        for i in range(self.setting.n_layer):
            blocks = {"attn": Attention(self.p, self.dp, i, n_head, masks)}
            blocks["mlp"] = Mlp(self.p, self.dp, i)
            self.sublayers += [
                Sublayer(self.p, self.dp, f"{i}.{part}", block)
                for part, block in blocks.items()
            ]

    def reset(self):
        for name, x in book_names(self.p, self.setting.n_layer).items():
            x[...] = self.problem.weights[name]
        self.m[:], self.v[:] = 0, 0

    def loss_and_grads(self, tokens):
        self.reset()
        loss = self.gradient(tokens)
        named = book_names(self.dp, self.setting.n_layer)
        return float(loss), {name: x.copy() for name, x in named.items()}

    def gradient(self, tokens):
        """The loss; the flat gradient is overwritten."""
        inputs, targets, p, dp = tokens[:-1], tokens[1:], self.p, self.dp
        T, s = len(inputs), np.empty((2, len(inputs) * p["wte"].shape[1]), self.w.dtype)
        x = p["wte"][inputs]
        x += p["wpe"][:T]
        s[:] = x.reshape(-1)
        for sublayer in self.sublayers:
            s = sublayer.forward(s)
        out = (p["contract"] @ s).reshape(T, -1)
        loss, dlogits = self.cross_entropy(out @ p["lm_head"].T, targets)
        np.matmul(dlogits.T, out, out=dp["lm_head"])
        dout = (dlogits @ p["lm_head"]).reshape(-1)
        np.matmul(s, dout, out=dp["contract"])
        ds = np.multiply.outer(p["contract"], dout)
        for sublayer in reversed(self.sublayers):
            ds = sublayer.backward(ds)
        self.embed_backward(inputs, (ds[0] + ds[1]).reshape(T, -1))
        return loss

    def cross_entropy(self, logits, targets):
        """Mean loss of logits (T x V), which become their own gradient."""
        t = np.arange(len(targets))
        logits -= logits.max(axis=1, keepdims=True)
        picked = logits[t, targets]
        np.exp(logits, out=logits)
        total = logits.sum(axis=1)
        loss = (np.log(total) - picked).sum() / len(t)
        logits /= total[:, None] * logits.dtype.type(len(t))
        logits[t, targets] -= 1 / len(t)
        return loss, logits

    def embed_backward(self, inputs, dx):
        """Gradients of both embeddings from dx (T x C)."""
        one_hot = inputs == np.arange(len(self.p["wte"]))[:, None]
        np.matmul(one_hot.astype(dx.dtype), dx, out=self.dp["wte"])
        self.dp["wpe"][: len(dx)] = dx
        self.dp["wpe"][len(dx) :] = 0

    def adam(self, rate, unbias):
        """One step on the flat buffers, in place."""
        w, g, m, v, x = self.w, self.g, self.m, self.v, self.scratch
        m *= BETA1
        m += np.multiply(g, 1 - BETA1, out=x)
        v *= BETA2
        g *= g
        g *= 1 - BETA2
        v += g
        np.sqrt(np.multiply(v, unbias, out=x), out=x)
        x += EPS
        np.divide(m, x, out=x)
        x *= rate
        w -= x

    def run(self, steps):
        losses, rates = [], zip(*(x.tolist() for x in adam_factors(steps)), strict=True)
        for (tokens,), factors in zip(
            steps_of(self.problem, steps), rates, strict=True
        ):
            losses.append(self.gradient(tokens))
            self.adam(*factors)
        return np.array(losses)
