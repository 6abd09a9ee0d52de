"""JAX: loss in `jax.numpy`, gradient by `jax.grad`, Adam on a flat vector, all jitted.

XLA starts dozens of small loops a step, whose starting costs more than their work at
this size. So all parameters travel as one vector (but in `PlainScan`), documents are
padded to one of few lengths, chosen inside the compiled code, and nothing is sent from
Python in the loop.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from ..problem import BETA1, BETA2, EPS, RMS_EPS
from .contender import Contender, adam_factors


def pack(weights: dict, n_layer: int, dtype) -> dict:
    """The book's parameters, each matrix transposed; query, key and value as one."""
    w = {name: np.asarray(x, dtype).T for name, x in weights.items()}
    p = {name: w[name] for name in ("wte", "wpe", "lm_head", "contract")}
    for i in range(n_layer):
        p[f"{i}.qkv"] = np.hstack([w[f"{i}.w{x}"] for x in "qkv"])
        p |= {f"{i}.{x}": w[f"{i}.{x}"] for x in ("wo", "fc1", "fc2")}
        for part in ("attn", "mlp"):
            names = (f"{i}.{part}.{x}" for x in ("theta", "alpha", "beta"))
            p[f"{i}.{part}"] = np.concatenate([w[name] for name in names])
    return {name: jnp.asarray(x) for name, x in p.items()}


def unpack(p: dict, n_layer: int) -> dict[str, np.ndarray]:
    """The inverse of `pack`: gradients under the book's names."""
    p = {name: np.asarray(x) for name, x in p.items()}
    w = {name: p[name].T for name in ("wte", "wpe", "lm_head", "contract")}
    for i in range(n_layer):
        qkv = np.split(p[f"{i}.qkv"], 3, axis=1)
        w |= {f"{i}.w{x}": part.T for x, part in zip("qkv", qkv, strict=True)}
        w |= {f"{i}.{x}": p[f"{i}.{x}"].T for x in ("wo", "fc1", "fc2")}
        for part in ("attn", "mlp"):
            parts = np.split(p[f"{i}.{part}"], [1, 3])
            names = (f"{i}.{part}.{x}" for x in ("theta", "alpha", "beta"))
            w |= dict(zip(names, parts, strict=True))
    return w


def attention(z, qkv, n_head: int):
    """Causal attention of z (T x C); the T x T matrix is small enough to be kept."""
    T, C = z.shape
    q, k, v = (x.reshape(T, n_head, -1) for x in jnp.split(z @ qkv, 3, axis=1))
    s = jnp.einsum("ihd,jhd->hij", q, k) * (C // n_head) ** -0.5
    s = jnp.where(np.tri(T, dtype=bool), s, -jnp.inf)
    return jnp.einsum("hij,jhd->ihd", jax.nn.softmax(s), v).reshape(T, C)


def sublayer(p, i: int, part: str, streams, n_head: int):
    """Mix, aggregate, normalise, attention or MLP, distribute; streams: two (T x C)."""
    theta, *scalars = p[f"{i}.{part}"]
    alpha, beta, t = scalars[:2], scalars[2:], jax.nn.sigmoid(theta)
    a, b = streams
    mixed = t * a + (1 - t) * b, (1 - t) * a + t * b
    h = alpha[0] * mixed[0] + alpha[1] * mixed[1]
    z = h * lax.rsqrt((h * h).mean(axis=1, keepdims=True) + RMS_EPS)
    if part == "attn":
        y = attention(z, p[f"{i}.qkv"], n_head) @ p[f"{i}.wo"]
    else:
        y = jax.nn.relu(z @ p[f"{i}.fc1"]) @ p[f"{i}.fc2"]
    return mixed[0] + beta[0] * y, mixed[1] + beta[1] * y


def document_loss(p, tokens, length, n_layer: int, n_head: int):
    """Mean cross-entropy of the first `length` predictions of padded tokens."""
    inputs, targets = tokens[:-1], tokens[1:]
    x = p["wte"][inputs] + p["wpe"][: len(inputs)]
    streams = x, x
    for i in range(n_layer):
        for part in ("attn", "mlp"):
            streams = sublayer(p, i, part, streams, n_head)
    out = p["contract"][0] * streams[0] + p["contract"][1] * streams[1]
    log_p = jax.nn.log_softmax(out @ p["lm_head"])
    hits = jax.nn.one_hot(targets, log_p.shape[1], dtype=log_p.dtype)
    losses = -(hits * log_p).sum(axis=1)
    return jnp.where(jnp.arange(len(inputs)) < length, losses, 0).sum() / length


def padded_lengths(setting) -> list[int]:
    """Lengths that a document may be padded to, the last one block_size.

    Each is compiled apart. Two for names alone, two larger ones for a batch, which is
    as long as its longest name.
    """
    if setting.documents == "full":
        return [setting.block_size]
    small = [8, 16] if setting.batch_size == 1 else [12, 16]
    return [n for n in small if n < setting.block_size] + [setting.block_size]


class Jax(Contender):
    """What the jitted step and the scan share."""

    def __init__(self, problem):
        super().__init__(problem)
        s = self.setting
        jax.config.update("jax_enable_x64", s.dtype == "float64")
        p = pack(problem.weights, s.n_layer, s.dtype)
        self.initial, self.unravel = ravel_pytree(p)
        self.sizes, self.number = padded_lengths(s), self.initial.dtype
        self.losses_of = functools.partial(
            document_loss, n_layer=s.n_layer, n_head=s.n_head
        )

    def batch_loss(self, flat, tokens, lengths):
        """Mean loss of the documents of a step; a single one is not vmapped."""
        p = self.unravel(flat)
        if len(tokens) == 1:
            return self.losses_of(p, tokens[0], lengths[0])
        by_document = jax.vmap(self.losses_of, in_axes=(None, 0, 0))
        return by_document(p, tokens, lengths).mean()

    def gradient(self, flat, tokens, lengths):
        """Loss and flat gradient, computed at the least padded length that fits."""
        sizes = self.sizes

        def branch(size):
            f = jax.value_and_grad(self.batch_loss)
            return lambda w, t, n: f(w, t[:, : size + 1], n)

        longest = lengths.max()
        which = sum((longest > size).astype("int32") for size in sizes[:-1])
        branches = [branch(size) for size in sizes]
        if len(branches) == 1:
            return branches[0](flat, tokens, lengths)
        return lax.switch(which, branches, flat, tokens, lengths)

    def update(self, state, row):
        """One step: loss, gradient, Adam; state: weights and Adam's two means."""
        w, m, v = state
        tokens, lengths, rate, unbias = row
        loss, g = self.gradient(w, tokens, lengths)
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)

        def moved(w, m, v):
            return w - rate * m / (jnp.sqrt(v * unbias) + EPS)

        return (jax.tree.map(moved, w, m, v), m, v), loss

    @functools.cache  # noqa: B019 (a worker has one contender and ends with it)
    def rows(self, steps: int):
        """On the device: tokens, lengths and Adam's factors of all steps."""
        B = self.setting.batch_size
        tokens, lengths = self.problem.padded(steps * B)
        factors = (jnp.asarray(x, self.number) for x in adam_factors(steps))
        lengths = lengths.reshape(steps, B).astype(self.number)
        return jnp.asarray(tokens.reshape(steps, B, -1)), jnp.asarray(lengths), *factors

    def loss_and_grads(self, tokens):
        """As the book's; the document is padded as it is in a run."""
        row = np.full((1, self.setting.block_size + 1), self.problem.corpus.bos)
        row[0, : len(tokens)] = tokens
        lengths = jnp.asarray([len(tokens) - 1], self.number)
        loss, g = jax.jit(self.gradient)(self.initial, jnp.asarray(row), lengths)
        return float(loss), unpack(self.unravel(g), self.setting.n_layer)

    def reset(self):
        zeros = (jax.tree.map(jnp.zeros_like, self.initial) for _ in range(2))
        state = jax.tree.map(jnp.copy, self.initial), *zeros
        self.state = jax.block_until_ready(state)


class Scan(Jax):
    """All steps in one call: `lax.scan` over the rows, state donated."""

    @functools.cached_property
    def loop(self):
        """(state, rows) -> (state, losses)."""
        return jax.jit(lambda s, rows: lax.scan(self.update, s, rows), donate_argnums=0)

    def run(self, steps):
        self.state, losses = self.loop(self.state, self.rows(steps))
        return np.asarray(losses)


class PlainScan(Scan):
    """The scan as one writes it first: a dictionary of arrays, one padded length."""

    def __init__(self, problem):
        super().__init__(problem)
        self.initial, self.unravel = self.unravel(self.initial), lambda p: p
        self.sizes = self.sizes[-1:]


class Step(Jax):
    """One call a step; the step number and the losses stay on the device."""

    @functools.cached_property
    def step(self):
        """(number, state, losses, rows) -> (number, state, losses), all donated."""

        def one(number, state, losses, rows):
            row = jax.tree.map(lambda x: x[number], rows)
            state, loss = self.update(state, row)
            return number + 1, state, losses.at[number].set(loss)

        return jax.jit(one, donate_argnums=(0, 1, 2))

    def run(self, steps):
        rows = self.rows(steps)
        now = jnp.int32(0), self.state, jnp.zeros(steps, self.number)
        for _ in range(steps):
            now = self.step(*now, rows)
        self.state = now[1]
        return np.asarray(now[2])
