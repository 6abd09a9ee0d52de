"""Ten thousand gradients, each along a random direction, against central differences.

Along a direction d of length 1 the fourth-order difference of step h has an error of
h^4 |f'''''| / 30 from the end of the series and about 1.5 eps |f| / h from rounding.
With h = 1e-3 and losses near 2 these are about 3e-14 |f'''''| and 1e-12; the bound of
1e-7 beside the length of the gradient leaves room for steep places, and a wrong term
in a gradient is far larger. No difference reaches across a kink of ReLU.
"""

import math

import numba
import numpy as np
import pytest

import microgpt
from microgpt import hyper_connections as hyper
from microgpt import matrix, model, rmsnorm

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="too many for Python alone"
)
H, BOUND = 1e-3, 1e-7
STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
IN_MODELS, IN_KERNELS = 5000, 500  # 5,000 in models and 10 times 500 in kernels
SIZES = [  # vocab_size, n_embd, n_head, n_layer, block_size, tile
    (5, 4, 2, 1, 3, 2), (3, 6, 3, 2, 4, 3), (7, 6, 2, 1, 6, 16), (4, 8, 2, 3, 5, 1),
]  # fmt: skip


def directional(f, x, direction):
    """d/dt f(x + t direction) at t = 0."""
    return sum(weight * f(x + i * H * direction) for i, weight in STENCIL) / H


def unit(rng, *shape):
    d = rng.normal(size=shape)
    return np.asfortranarray(d / np.linalg.norm(d))


def small_model(sizes, rng):
    """A model without symmetry: every scalar is drawn, too."""
    gpt = microgpt.GPT(microgpt.GPTConfig(*sizes), None)
    gpt.weights[:] = rng.normal(0, 0.4, gpt.weights.size)
    for name, x in gpt.params.items():
        if x.size <= 2 and not name.endswith("theta"):
            x += 0.5
    return gpt


def loss_along(gpt, tokens, d):
    """Slope of the loss along d, and where ReLU was open at each point of the way."""
    begin, signs = gpt.weights.copy(), []

    def loss(weights):
        gpt.weights[:] = weights
        value = gpt.loss(tokens)
        signs.append(gpt.activations.f[:, : len(tokens) - 1] > 0)
        return value

    return directional(loss, begin, d), signs


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.equation("model-backward")
def test_models(sizes):
    rng, done = np.random.default_rng(sizes[1]), 0
    while done < IN_MODELS // len(SIZES):
        gpt, V, T = (
            small_model(sizes, rng),
            sizes[0],
            int(rng.integers(1, sizes[4] + 1)),
        )
        for _ in range(25):
            tokens = rng.integers(0, V, T + 1).tolist()
            begin, d = gpt.weights.copy(), unit(rng, gpt.weights.size)
            gpt.loss_and_grads(tokens)
            slope, length = gpt.gradient @ d, np.linalg.norm(gpt.gradient)
            expected, signs = loss_along(gpt, tokens, d)
            gpt.weights[:] = begin
            if not all((s == signs[0]).all() for s in signs):
                continue  # a kink lies within reach
            assert abs(slope - expected) <= BOUND * max(1, length), (tokens, slope)
            done += 1


def run(kernel, inputs, *shapes):
    """Results of a kernel that writes arrays of these shapes after its inputs."""
    results = [np.zeros(shape, order="F") for shape in shapes]
    kernel(*inputs, *results)
    return results


def products(dy, a, b):
    da, db = np.zeros_like(a), np.zeros_like(b)
    matrix.matmul_add(dy, b.T, da)
    matrix.matmul_tn(a, dy, db, np.zeros(a.shape[::-1], order="F"))
    return da, db


def norm_backward(dy, x):
    y, r = run(rmsnorm.rmsnorm, [x], x.shape, x.shape[1])
    return run(rmsnorm.rmsnorm_backward, [dy, y, r], x.shape)


def softmax_backward(dy, x):
    (y,) = run(matrix.softmax, [x], x.shape)
    return run(matrix.softmax_backward, [dy, y], x.shape)


def mix_backward(dm, A, s):
    ds, dA = run(hyper.mix_backward, [dm, A, s], s.shape, A.shape)
    return dA, ds


def aggregate_backward(dh, alpha, m):
    dm, dalpha = run(hyper.aggregate_backward, [dh, alpha, m], m.shape, alpha.shape)
    return dalpha, dm


def distribute_backward(ds, beta, m, y):
    shapes = m.shape, y.shape, beta.shape
    dm, dy, dbeta = run(hyper.distribute_backward, [ds, beta, y], *shapes)
    return dbeta, dm, dy


def birkhoff(theta):
    return run(hyper.birkhoff, [theta[0]], (2, 2))


def birkhoff_backward(dA, theta):
    return [np.array([hyper.birkhoff_backward(dA, *birkhoff(theta))])]


def naive(q, k, v):
    return microgpt.naive_attention(q, k, v, 2)[:1]


def naive_backward(do, q, k, v):
    p = microgpt.naive_attention(q, k, v, 2)[1]
    return microgpt.naive_attention_backward(do, q, k, v, p, 2)


def tiled(q, k, v):
    return microgpt.flash_attention(q, k, v, 2, 3)[:1]


def tiled_backward(do, q, k, v):
    rest = microgpt.flash_attention(q, k, v, 2, 3)
    return microgpt.flash_attention_backward(do, q, k, v, *rest, 2, 3)


TOKENS, ENDS = np.array([1, 0, 2, 1]), np.array([1, 4])


def embed(wte, wpe):
    return run(model.embed, [TOKENS, ENDS, 0, wte, wpe], (5, 4))


def embed_backward(dx, wte, wpe):
    return run(model.embed_backward, [dx, TOKENS, ENDS], wte.shape, wpe.shape)


OPERATIONS = {
    "matmul": (
        lambda a, b: run(matrix.matmul, [a, b], (5, 3)), products, (5, 4), (4, 3),
    ),
    "softmax": (lambda x: run(matrix.softmax, [x], x.shape), softmax_backward, (5, 3)),
    "rmsnorm": (
        lambda x: run(rmsnorm.rmsnorm, [x], x.shape, x.shape[1])[:1],
        norm_backward, (5, 3),
    ),
    "birkhoff": (birkhoff, birkhoff_backward, (1,)),
    "mix": (
        lambda A, s: run(hyper.mix, [A, s], s.shape), mix_backward, (3, 3), (5, 3, 4),
    ),
    "aggregate": (
        lambda alpha, m: run(hyper.aggregate, [alpha, m], (5, 4)),
        aggregate_backward, (3,), (5, 3, 4),
    ),
    "distribute": (
        lambda beta, m, y: run(hyper.distribute, [beta, m, y], m.shape),
        distribute_backward, (3,), (5, 3, 4), (5, 4),
    ),
    "naive attention": (naive, naive_backward, (6, 7), (6, 7), (6, 7)),
    "tiled attention": (tiled, tiled_backward, (6, 7), (6, 7), (6, 7)),
    "embed": (embed, embed_backward, (5, 3), (5, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_kernels(name):
    """<dy, y> has the gradient that the backward pass gives for dy."""
    forward, backward, *shapes = OPERATIONS[name]
    rng = np.random.default_rng(len(name))
    for _ in range(IN_KERNELS):
        inputs = [np.asfortranarray(rng.normal(0, 0.7, shape)) for shape in shapes]
        (y,) = forward(*inputs)
        dy = np.asfortranarray(rng.normal(size=y.shape))
        directions = [unit(rng, *shape) / math.sqrt(len(shapes)) for shape in shapes]
        gradients = backward(dy, *inputs)

        def value(t, inputs=inputs, directions=directions, dy=dy):
            moved = [x + t * d for x, d in zip(inputs, directions, strict=True)]
            return (forward(*map(np.asfortranarray, moved))[0] * dy).sum()

        expected = directional(value, 0.0, 1.0)
        slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        length = math.sqrt(sum((g * g).sum() for g in gradients))
        assert abs(slope - expected) <= BOUND * max(1, length)


def test_there_are_ten_thousand():
    assert IN_MODELS + IN_KERNELS * len(OPERATIONS) == 10_000


@pytest.mark.equation("model-loss-backward")
def test_a_wrong_gradient_is_noticed():
    """The bound is no formality: one term off by a thousandth is refused."""
    rng = np.random.default_rng(1)
    gpt = small_model(SIZES[1], rng)
    _, grads = gpt.loss_and_grads([0, 1, 2, 1])
    d = grads["0.wq"] / np.linalg.norm(grads["0.wq"])

    def loss(t):
        gpt.params["0.wq"] += t * d
        value = gpt.loss([0, 1, 2, 1])
        gpt.params["0.wq"] -= t * d
        return value

    expected, slope = directional(loss, 0.0, 1.0), (grads["0.wq"] * d).sum()
    assert abs(slope - expected) <= BOUND < abs(1.001 * slope - expected)
