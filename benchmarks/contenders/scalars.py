"""Pure Python, a number at a time: a scalar that remembers how it was made.

The way of Karpathy's microgpt, written anew: every sum and every product becomes an
object, and the chain rule walks back through all of them. No array anywhere.
"""

import math
from itertools import pairwise

from ..problem import BETA1, BETA2, EPS, LR, RMS_EPS
from .contender import Contender, steps_of


class Scalar:
    """A number, its gradient, the scalars it was made of and its slope in each."""

    __slots__ = ("grad", "made_of", "slopes", "value")

    def __init__(self, value, made_of=(), slopes=()):
        self.value, self.grad, self.made_of, self.slopes = value, 0.0, made_of, slopes

    def __add__(self, other):
        if isinstance(other, Scalar):
            return Scalar(self.value + other.value, (self, other), (1.0, 1.0))
        return Scalar(self.value + other, (self,), (1.0,))

    def __mul__(self, other):
        if isinstance(other, Scalar):
            pair = (other.value, self.value)
            return Scalar(self.value * other.value, (self, other), pair)
        return Scalar(self.value * other, (self,), (other,))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other):
        return Scalar(other - self.value, (self,), (-1.0,))

    def power(self, n):
        """self ** n for a number n."""
        return Scalar(self.value**n, (self,), (n * self.value ** (n - 1),))

    def exp(self):
        """e ** self."""
        e = math.exp(self.value)
        return Scalar(e, (self,), (e,))

    def log(self):
        """The natural logarithm."""
        return Scalar(math.log(self.value), (self,), (1 / self.value,))

    def relu(self):
        """self or 0, whichever is more."""
        return Scalar(max(self.value, 0.0), (self,), (float(self.value > 0),))

    def backward(self):
        """Add the gradient of self to every scalar it depends on."""
        self.grad = 1.0
        for node in reversed(in_order(self)):
            for part, slope in zip(node.made_of, node.slopes, strict=True):
                part.grad += slope * node.grad


def in_order(root) -> list:
    """Every scalar that root depends on, each after what it is made of."""
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((part, False) for part in node.made_of)
    return order


def dot(a, b):
    """The sum of products, as one scalar made of all of them."""
    values = [x.value for x in a], [x.value for x in b]
    total = sum(x * y for x, y in zip(*values, strict=True))
    return Scalar(total, (*a, *b), (*values[1], *values[0]))


def linear(w, x):
    """w x for a list of rows w."""
    return [dot(row, x) for row in w]


def softmax(logits):
    """Probabilities; the largest logit is subtracted as a plain number."""
    top = max(x.value for x in logits)
    e = [(x + -top).exp() for x in logits]
    total = sum(e[1:], e[0]).power(-1)
    return [x * total for x in e]


def rmsnorm(h):
    """h over its root mean square."""
    r = (dot(h, h) * (1 / len(h)) + RMS_EPS).power(-0.5)
    return [x * r for x in h]


def attend(q, keys, values, n_head: int):
    """One position's causal attention to all keys so far."""
    d, out = len(q) // n_head, []
    for h in range(0, len(q), d):
        part = [k[h : h + d] for k in keys]
        p = softmax([dot(q[h : h + d], k) * d**-0.5 for k in part])
        out += [dot(p, [v[c] for v in values]) for c in range(h, h + d)]
    return out


class Model:
    """The model of the book on nested lists of scalars."""

    def __init__(self, weights, n_layer: int, n_head: int):
        turned = {"wte", "wpe"}
        arrays = {name: x.T if name in turned else x for name, x in weights.items()}
        self.p = {name: scalars(x.tolist()) for name, x in arrays.items()}
        self.n_layer, self.n_head = n_layer, n_head

    def answer(self, i, part, z, cache):
        """What the attention or the MLP of layer i says to one position's z."""
        if part == "mlp":
            u = [x.relu() for x in linear(self.p[f"{i}.fc1"], z)]
            return linear(self.p[f"{i}.fc2"], u)
        q, k, v = (linear(self.p[f"{i}.w{x}"], z) for x in "qkv")
        keys, values = cache[i]
        keys.append(k)
        values.append(v)
        return linear(self.p[f"{i}.wo"], attend(q, keys, values, self.n_head))

    def sublayer(self, i, part, s, cache):
        """Both streams of one position after a sublayer."""
        names = (f"{i}.{part}.{x}" for x in ("theta", "alpha", "beta"))
        (theta,), alpha, beta = (self.p[name] for name in names)
        t = ((theta * -1.0).exp() + 1.0).power(-1)
        u = 1.0 - t
        rows, pairs = ((t, u), (u, t)), list(zip(*s, strict=True))
        m = [[dot(row, pair) for pair in pairs] for row in rows]
        h = [dot(alpha, pair) for pair in zip(*m, strict=True)]
        y = self.answer(i, part, rmsnorm(h), cache)
        pairs = zip(m, beta, strict=True)
        return [[x + b * yc for x, yc in zip(row, y, strict=True)] for row, b in pairs]

    def logits(self, token, position, cache):
        """Logits of the next token; keys and values so far are in the cache."""
        pairs = zip(self.p["wte"][token], self.p["wpe"][position], strict=True)
        x = [a + b for a, b in pairs]
        s = [x, x]
        for i in range(self.n_layer):
            for part in ("attn", "mlp"):
                s = self.sublayer(i, part, s, cache)
        out = [dot(self.p["contract"], pair) for pair in zip(*s, strict=True)]
        return linear(self.p["lm_head"], out)

    def loss(self, tokens):
        """Mean cross-entropy of a document."""
        cache = [([], []) for _ in range(self.n_layer)]
        losses = []
        for position, (token, target) in enumerate(pairwise(tokens)):
            p = softmax(self.logits(token, position, cache))
            losses.append(p[target].log())
        return sum(losses[1:], losses[0]) * (-1 / len(losses))


def scalars(x):
    """Nested lists of numbers as nested lists of scalars."""
    return [scalars(y) for y in x] if isinstance(x, list) else Scalar(x)


def flat(x) -> list:
    """All scalars of nested lists."""
    return [z for y in x for z in flat(y)] if isinstance(x, list) else [x]


class Scalars(Contender):
    """One document a step, in Python's own floats."""

    batches = False

    def reset(self):
        sizes = self.setting.n_layer, self.setting.n_head
        self.model = Model(self.problem.weights, *sizes)
        self.everything = flat(list(self.model.p.values()))

    def gradient(self, tokens) -> float:
        """The loss; every parameter's gradient is set."""
        for x in self.everything:
            x.grad = 0.0
        loss = self.model.loss([int(i) for i in tokens])
        loss.backward()
        return loss.value

    def loss_and_grads(self, tokens):
        import numpy as np

        self.reset()
        loss, grads = self.gradient(tokens), {}
        for name, x in self.problem.weights.items():
            g = np.array([s.grad for s in flat(self.model.p[name])])
            turned = name in ("wte", "wpe")
            grads[name] = g.reshape(x.T.shape).T if turned else g.reshape(x.shape)
        return loss, grads

    def run(self, steps):
        m, v = ([0.0] * len(self.everything) for _ in range(2))
        losses = []
        for i, (tokens,) in enumerate(steps_of(self.problem, steps)):
            losses.append(self.gradient(tokens))
            self.adam(m, v, i, LR * (1 - i / steps))
        return losses

    def adam(self, m, v, i, lr):
        """Step i = 0, 1, ... on every parameter."""
        rate, unbias = lr / (1 - BETA1 ** (i + 1)), 1 / (1 - BETA2 ** (i + 1))
        for j, x in enumerate(self.everything):
            m[j] = BETA1 * m[j] + (1 - BETA1) * x.grad
            v[j] = BETA2 * v[j] + (1 - BETA2) * x.grad**2
            x.value -= rate * m[j] / (math.sqrt(v[j] * unbias) + EPS)
