"""The model of the book once more, written apart: rows are positions, plain NumPy.

Every operation is analytic (apart from ReLU's kink), so that the functions also take
complex weights: a step i*h in one weight gives its derivative, Im(loss) / h, without
the cancellation of a difference (Squire and Trapp 1998).
"""

import random

import numpy as np


def softmax_rows(scores):
    e = np.exp(scores - scores.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(q, k, v, n_head, causal=True):
    """q, k, v: positions x features."""
    heads = [np.split(x, n_head, axis=1) for x in (q, k, v)]
    hidden = np.triu(np.full((len(q), len(k)), -np.inf), 1) if causal else 0.0
    out = []
    for qh, kh, vh in zip(*heads, strict=True):
        scores = qh @ kh.T / np.sqrt(qh.shape[1]) + hidden
        out.append(softmax_rows(scores) @ vh)
    return np.hstack(out)


def logits(params, n_head, n_layer, tokens):
    """Logits, positions x vocabulary; parameters named and shaped as the package's."""
    x = params["wte"].T[tokens] + params["wpe"].T[: len(tokens)]
    streams = [x, x]
    for i in range(n_layer):
        for part in ("attn", "mlp"):
            t = 1 / (1 + np.exp(-params[f"{i}.{part}.theta"][0]))
            alpha, beta = params[f"{i}.{part}.alpha"], params[f"{i}.{part}.beta"]
            mixed = [
                t * streams[0] + (1 - t) * streams[1],
                (1 - t) * streams[0] + t * streams[1],
            ]
            h = alpha[0] * mixed[0] + alpha[1] * mixed[1]
            z = h / np.sqrt((h * h).mean(axis=1, keepdims=True) + 1e-5)
            if part == "attn":
                q, k, v = (z @ params[f"{i}.{w}"].T for w in ("wq", "wk", "wv"))
                y = attention(q, k, v, n_head) @ params[f"{i}.wo"].T
            else:
                f = z @ params[f"{i}.fc1"].T
                y = np.where(f.real > 0, f, 0) @ params[f"{i}.fc2"].T
            streams = [m + b * y for m, b in zip(mixed, beta, strict=True)]
    out = params["contract"][0] * streams[0] + params["contract"][1] * streams[1]
    return out @ params["lm_head"].T


def loss(params, n_head, n_layer, tokens):
    """Mean cross-entropy of T + 1 tokens in nats."""
    z = logits(params, n_head, n_layer, tokens[:-1])
    z = z - z.real.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(tokens) - 1), tokens[1:]].mean()


def complex_step_gradients(params, n_head, n_layer, tokens, h=1e-30):
    """Derivative of the loss by every parameter, exact to rounding."""
    shifted = {name: x.astype(complex) for name, x in params.items()}
    gradients = {}
    for name, x in shifted.items():
        gradients[name] = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            x[index] += 1j * h
            gradients[name][index] = loss(shifted, n_head, n_layer, tokens).imag / h
            x[index] -= 1j * h
    return gradients


def replay(numbers):
    """Python's own generator, but its random numbers are given."""
    rng = random.Random()
    rng.random = iter(numbers).__next__
    return rng
