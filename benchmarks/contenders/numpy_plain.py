"""NumPy as the equations are written: (features x positions), an operation a line.

Every function returns what it computed and a function that carries gradients back; each
result is a fresh array, and each head and each parameter has its turn in a Python loop.
"""

import numpy as np

from ..problem import BETA1, BETA2, EPS, LR, RMS_EPS
from .contender import Contender, steps_of


def linear(w, x):
    """w x, and dy -> (dw, dx)."""
    return w @ x, lambda dy: (dy @ x.T, w.T @ dy)


def rmsnorm(h):
    """h over its root mean square by column, and dz -> dh."""
    r = 1 / np.sqrt((h * h).mean(axis=0) + RMS_EPS)
    z = h * r
    return z, lambda dz: r * (dz - z * (z * dz).mean(axis=0))


def head(q, k, v):
    """One head of causal attention (d x T), and do -> (dq, dk, dv)."""
    scale = q.dtype.type(1 / np.sqrt(len(q)))
    s = k.T @ q * scale
    s[np.tri(len(s), k=-1, dtype=bool)] = -np.inf  # keys that come after the query
    e = np.exp(s - s.max(axis=0))
    p = e / e.sum(axis=0)

    def back(do):
        dp = v.T @ do
        ds = p * (dp - (p * dp).sum(axis=0)) * scale
        return k @ ds, q @ ds.T, do @ p.T

    return v @ p, back


def attention(w, z, n_head):
    """Wo attention(Wq z, Wk z, Wv z); w: the four; and dy -> (their gradients, dz)."""
    qkv, backs = zip(*(linear(wi, z) for wi in w[:3]), strict=True)
    split = (np.split(x, n_head) for x in qkv)
    heads = [head(*parts) for parts in zip(*split, strict=True)]
    y, out_back = linear(w[3], np.vstack([o for o, _ in heads]))

    def back(dy):
        dwo, do = out_back(dy)
        parts = zip(heads, np.split(do, n_head), strict=True)
        dqkv = zip(*(h_back(d) for (_, h_back), d in parts), strict=True)
        pairs = [b(np.vstack(d)) for b, d in zip(backs, dqkv, strict=True)]
        return [*(dw for dw, _ in pairs), dwo], sum(dz for _, dz in pairs)

    return y, back


def mlp(w, z):
    """fc2 relu(fc1 z), and dy -> (gradients of fc1 and fc2, dz)."""
    f, f_back = linear(w[0], z)
    y, y_back = linear(w[1], np.maximum(f, 0))

    def back(dy):
        dw2, du = y_back(dy)
        dw1, dz = f_back(du * (f > 0))
        return [dw1, dw2], dz

    return y, back


def mix(theta, s):
    """A s with A = [[t, 1-t], [1-t, t]], and dm -> (dtheta, ds); s: two streams."""
    t = 1 / (1 + np.exp(-theta[0]))
    mixed = [t * s[0] + (1 - t) * s[1], (1 - t) * s[0] + t * s[1]]

    def back(dm):
        dt = ((dm[0] - dm[1]) * (s[0] - s[1])).sum()
        ds = [t * dm[0] + (1 - t) * dm[1], (1 - t) * dm[0] + t * dm[1]]
        return np.array([dt * t * (1 - t)], s[0].dtype), ds

    return mixed, back


def aggregate(alpha, m):
    """alpha[0] m0 + alpha[1] m1, and dh -> (dalpha, dm)."""

    def back(dh):
        return np.array([(mi * dh).sum() for mi in m]), [a * dh for a in alpha]

    return alpha[0] * m[0] + alpha[1] * m[1], back


def distribute(beta, m, y):
    """m_i + beta_i y, and ds -> (dbeta, dy); ds itself is the gradient of m."""

    def back(ds):
        return np.array([(d * y).sum() for d in ds]), beta[0] * ds[0] + beta[1] * ds[1]

    return [mi + b * y for mi, b in zip(m, beta, strict=True)], back


WEIGHTS = {"attn": ("wq", "wk", "wv", "wo"), "mlp": ("fc1", "fc2")}


def sublayer(params, i, part, s, n_head):
    """Streams after a sublayer, and ds -> (gradients by name, ds before it)."""
    name = f"{i}.{part}"
    m, mix_back = mix(params[f"{name}.theta"], s)
    h, h_back = aggregate(params[f"{name}.alpha"], m)
    z, norm_back = rmsnorm(h)
    w = [params[f"{i}.{x}"] for x in WEIGHTS[part]]
    y, y_back = attention(w, z, n_head) if part == "attn" else mlp(w, z)
    out, out_back = distribute(params[f"{name}.beta"], m, y)

    def back(ds):
        dbeta, dy = out_back(ds)
        dw, dz = y_back(dy)
        dalpha, dm = h_back(norm_back(dz))
        dtheta, before = mix_back([a + b for a, b in zip(ds, dm, strict=True)])
        grads = {f"{i}.{x}": d for x, d in zip(WEIGHTS[part], dw, strict=True)}
        small = {"theta": dtheta, "alpha": dalpha, "beta": dbeta}
        return grads | {f"{name}.{x}": d for x, d in small.items()}, before

    return out, back


def cross_entropy(logits, targets):
    """Mean loss of logits (V x T), and its gradient."""
    e = np.exp(logits - logits.max(axis=0))
    p, t = e / e.sum(axis=0), np.arange(len(targets))
    loss = -np.log(p[targets, t]).mean()
    p[targets, t] -= 1
    return loss, p / p.dtype.type(len(targets))


def embed_backward(params, tokens, dx):
    """Gradients of wte and wpe from dx (C x T)."""
    dwte, dwpe = np.zeros_like(params["wte"]), np.zeros_like(params["wpe"])
    np.add.at(dwte.T, tokens, dx.T)
    dwpe[:, : len(tokens)] = dx
    return {"wte": dwte, "wpe": dwpe}


def loss_and_grads(params, tokens, n_layer, n_head):
    """Loss of a document and gradients by name."""
    inputs, backs = tokens[:-1], []
    x = params["wte"][:, inputs] + params["wpe"][:, : len(inputs)]
    s = [x, x]
    for i in range(n_layer):
        for part in ("attn", "mlp"):
            s, back = sublayer(params, i, part, s, n_head)
            backs.append(back)
    out, contract_back = aggregate(params["contract"], s)
    logits, head_back = linear(params["lm_head"], out)
    loss, dlogits = cross_entropy(logits, tokens[1:])
    dhead, dout = head_back(dlogits)
    dcontract, ds = contract_back(dout)
    grads = {"lm_head": dhead, "contract": dcontract}
    for back in reversed(backs):
        more, ds = back(ds)
        grads |= more
    return loss, grads | embed_backward(params, inputs, ds[0] + ds[1])


def adam(params, grads, m, v, step, lr):
    """One step = 1, 2, ... for each parameter in turn."""
    for name, w in params.items():
        m[name] = BETA1 * m[name] + (1 - BETA1) * grads[name]
        v[name] = BETA2 * v[name] + (1 - BETA2) * grads[name] ** 2
        m_hat, v_hat = m[name] / (1 - BETA1**step), v[name] / (1 - BETA2**step)
        params[name] = w - lr * m_hat / (np.sqrt(v_hat) + EPS)


class Plain(Contender):
    """Forward, backward and Adam, one document a step."""

    batches = False

    def reset(self):
        dtype = self.setting.dtype
        self.params = {k: x.astype(dtype) for k, x in self.problem.weights.items()}

    def loss_and_grads(self, tokens):
        self.reset()
        sizes = self.setting.n_layer, self.setting.n_head
        loss, grads = loss_and_grads(self.params, tokens, *sizes)
        return float(loss), grads

    def run(self, steps):
        m, v = ({k: np.zeros_like(x) for k, x in self.params.items()} for _ in range(2))
        sizes, losses = (self.setting.n_layer, self.setting.n_head), []
        for i, (tokens,) in enumerate(steps_of(self.problem, steps)):
            loss, grads = loss_and_grads(self.params, tokens, *sizes)
            adam(self.params, grads, m, v, i + 1, LR * (1 - i / steps))
            losses.append(loss)
        return np.array(losses)
