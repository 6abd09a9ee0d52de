"""RMSNorm and the hyper-connections, for any shape and any number, within bounds."""

import math

import numpy as np
import pytest
from bounds import (
    DTYPES,
    FINITE,
    KINDS,
    LONG,
    Draw,
    check,
    draws,
    long,
    same_numbers,
    sizes,
)
from hypothesis import given
from hypothesis import strategies as st

import microgpt
from microgpt import hyper_connections as hyper
from microgpt import rmsnorm

SIZE = sizes(9)
SMALL = [kind for kind in KINDS if kind != "huge"]  # products of 1e30 are no numbers


@given(draws(), sizes(21), SIZE)
def test_rmsnorm(x, C, T):
    """C products, their sum, mean, eps, root, reciprocal, product; halved by the root.

    Of numbers so large that 1 / r is near the largest number, r is subnormal: an error
    of one such step in it is one of |x| steps in y. No finite column
    overflows; one with inf in it is nan.
    """
    a, y, r = x(C, T), x.garbage(C, T), x.garbage(T)
    with np.errstate(all="ignore"):
        rmsnorm.rmsnorm(a, y, r)
        la, step = long(a)[0], LONG(np.finfo(x.dtype).smallest_subnormal)
        mean = np.where(np.isinf(la).any(axis=0), np.nan, (la * la).mean(axis=0))
        exact_r = 1 / np.sqrt(mean + LONG(1e-5))
        check(r, exact_r, exact_r, C + 8, "r")
        extra = abs(la) * step / LONG(np.finfo(x.dtype).eps)
        check(y, la * exact_r, abs(la * exact_r) + extra, C + 9, "y")
    if x.kind in FINITE:
        assert np.isfinite(y).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [1, 2, 5, 16])
@pytest.mark.equation("rmsnorm-forward")
def test_the_loudest_columns_are_normalised(dtype, C):
    """From the smallest to the largest number of the type, nothing overflows."""
    kind = np.finfo(dtype)
    sizes = [0.0, kind.smallest_subnormal, 1e-30, 1e-3, 1.0, 1e15]
    sizes += [math.sqrt(kind.max) * f for f in (0.2, 0.9, 1.1, 9.0)] + [kind.max]
    a = np.zeros((C, len(sizes)), dtype, order="F")
    a[:] = np.array(sizes) * np.where(np.arange(C) % 2, -0.5, 1.0)[:, None]
    y, r = np.zeros_like(a), np.zeros(len(sizes), dtype)
    with np.errstate(all="ignore"):
        rmsnorm.rmsnorm(a, y, r)
    la = long(a)[0]
    top = np.maximum(abs(la).max(axis=0), 1)  # long double may be no longer than double
    z = la / top
    exact = z / np.sqrt((z * z).mean(axis=0) + LONG(1e-5) / top / top)
    np.testing.assert_allclose(y, exact, rtol=8 * kind.eps, atol=2 * kind.tiny)


@given(draws(), sizes(21), SIZE)
def test_rmsnorm_backward(x, C, T):
    """C products and their sum, the mean, two products, a difference, a product.

    What underflows in the mean is multiplied by y and r. Normalised numbers y are never
    large, so that only a dy near the largest number could overflow in it.
    """
    dy, y, r = x(C, T), np.clip(x(C, T), -5, 5), x.positive(T)
    dx = x.garbage(C, T)
    with np.errstate(all="ignore"):
        rmsnorm.rmsnorm_backward(dy, y, r, dx)
        ldy, ly, lr = long(dy, y, r)
        exact = lr * (ldy - ly * (ly * ldy).mean(axis=0))
        kind = np.finfo(x.dtype)
        mean = abs(ly * ldy).mean(axis=0) + kind.smallest_subnormal / LONG(kind.eps)
        size = lr * (abs(ldy) + abs(ly) * mean)
        check(dx, exact, size, C + 8)


THETA = st.floats(-1e3, 1e3) | st.sampled_from(
    [0.0, -0.5, 36.7, -36.7, 745.2, 1e30, -1e30]
)


@given(THETA, st.sampled_from(DTYPES))
@pytest.mark.equation("hyper-birkhoff")
def test_birkhoff_is_doubly_stochastic(theta, dtype):
    """1 - e is rounded once, so rows and columns sum to 1 within eps / 2."""
    theta, A = np.dtype(dtype).type(theta), np.full((2, 2), 9.0, dtype, order="F")
    hyper.birkhoff(theta, A)
    eps = np.finfo(dtype).eps
    close = 1e-12 if dtype == "float64" else eps
    for axis in (0, 1):
        assert abs(A.astype(float).sum(axis=axis) - 1).max() <= close
    assert (A >= 0).all() and A[0, 0] == A[1, 1] and A[0, 1] == A[1, 0]
    with np.errstate(over="ignore", under="ignore"):
        t = 1 / (1 + np.exp(-LONG(theta)))
        swap = 1 / (1 + np.exp(LONG(theta)))
    check(A[0, 0], t, t, 4 + abs(theta))
    check(A[0, 1], swap, swap, 4 + abs(theta))


@pytest.mark.parametrize("theta", [math.nan, -math.nan])
def test_a_theta_that_is_no_number_is_seen(theta):
    A = np.zeros((2, 2), order="F")
    hyper.birkhoff(theta, A)
    assert np.isnan(A).all()


@given(THETA, st.integers(0, 99))
@pytest.mark.equation("hyper-birkhoff-backward")
def test_birkhoff_backward(theta, seed):
    A, dA = np.zeros((2, 2), order="F"), Draw("float64", "normal", seed)(2, 2)
    hyper.birkhoff(theta, A)
    t, swap = long(A[0, 0], A[0, 1])
    exact = t * swap * (dA[0, 0] - dA[0, 1] - dA[1, 0] + dA[1, 1])
    found = np.float64(hyper.birkhoff_backward(dA, A))
    check(found, exact, t * swap * abs(dA).sum(), 8)


# Some sizes of 1 only, since numba compiles anew for an array that has but one axis
SHAPES = st.tuples(st.integers(2, 9), sizes(4), st.integers(2, 5))
SHAPES |= st.sampled_from([(1, 1, 1), (1, 2, 3)])


@given(draws(SMALL), SHAPES)
def test_streams_forward(x, shape):
    """A sum of n products for a stream; a number and a product when distributing."""
    C, n, T = shape
    a, s, m = x(C, T), x(C, n, T), x(C, n, T)
    alpha, beta, A = x.plain(n), x.plain(n), x.plain(n, n)
    out, h = x.garbage(C, n, T), x.garbage(C, T)
    la, ls, lm, lalpha, lbeta, lA = long(a, s, m, alpha, beta, A)
    hyper.expand(a, out)
    same_numbers(out, np.repeat(a[:, None], n, axis=1))
    with np.errstate(all="ignore"):
        hyper.mix(A, s, out)
        sums = (
            np.einsum("ij,cjt->cit", lA, ls),
            np.einsum("ij,cjt->cit", abs(lA), abs(ls)),
        )
        check(out, *sums, 2 * n, "mix")
        hyper.aggregate(alpha, m, h)
        sums = np.einsum("i,cit->ct", lalpha, lm)
        check(h, sums, np.einsum("i,cit->ct", abs(lalpha), abs(lm)), 2 * n, "aggregate")
        hyper.distribute(beta, m, a, out)
        share = lbeta[:, None] * la[:, None]
        check(out, lm + share, abs(lm) + abs(share), 2, "distribute")


@given(draws(SMALL), SHAPES)
def test_streams_backward(x, shape):
    """Each gradient against its sum; those of weights are added to what was there."""
    C, n, T = shape
    dh, m, s, ds = x(C, T), x(C, n, T), x.plain(C, n, T), x(C, n, T)
    alpha, beta, y, A = x.plain(n), x.plain(n), x.plain(C, T), x.plain(n, n)
    dm, dalpha, dbeta = x.plain(C, n, T), x.plain(n), x.plain(n)
    ldh, lm, ls, lds, ly = long(dh, m, s, ds, y)
    lalpha, lbeta, lA, ldm, ldalpha, ldbeta = long(alpha, beta, A, dm, dalpha, dbeta)
    many = 2 * C * T + 8
    with np.errstate(all="ignore"):
        hyper.aggregate_backward(dh, alpha, m, dm, dalpha)
        part = lalpha[:, None] * ldh[:, None]
        check(dm, ldm + part, abs(ldm) + abs(part), 2, "dm")
        part = ldh[:, None] * lm
        exact, size = part.sum(axis=(0, 2)), abs(part).sum(axis=(0, 2))
        check(dalpha, ldalpha + exact, abs(ldalpha) + size, many, "dalpha")
        dy, out = x.garbage(C, T), x.garbage(C, n, T)
        hyper.distribute_backward(ds, beta, y, out, dy, dbeta)
        same_numbers(out, ds)
        part = lbeta[:, None] * lds
        check(dy, part.sum(axis=1), abs(part).sum(axis=1), 2 * n, "dy")
        part = lds * ly[:, None]
        exact, size = part.sum(axis=(0, 2)), abs(part).sum(axis=(0, 2))
        check(dbeta, ldbeta + exact, abs(ldbeta) + size, many, "dbeta")
        dA = x.garbage(n, n)
        hyper.mix_backward(ds, A, s, out, dA)
        exact = np.einsum("ij,cit->cjt", lA, lds)
        size = np.einsum("ij,cit->cjt", abs(lA), abs(lds))
        check(out, exact, size, 2 * n, "ds")
        exact = np.einsum("cit,cjt->ij", lds, ls)
        check(dA, exact, np.einsum("cit,cjt->ij", abs(lds), abs(ls)), many, "dA")
        dx = x.garbage(C, T)
        hyper.expand_backward(ds, dx)
        check(dx, lds.sum(axis=1), abs(lds).sum(axis=1), n, "dx")


@given(sizes(5), st.sampled_from([1.0, 50.0, 1e6, 1e300]), st.integers(0, 99))
@pytest.mark.equation("hyper-sinkhorn")
def test_sinkhorn(n, spread, seed):
    logits = np.random.default_rng(seed).uniform(-spread, spread, (n, n))
    logits.flags.writeable = False
    A = microgpt.sinkhorn(logits[::-1], 40)
    assert (A >= 0).all() and A.flags.f_contiguous and A.dtype == "float64"
    # a logarithm is rounded relative to the logits, so that is how sums are
    np.testing.assert_allclose(A.sum(axis=1), 1, rtol=1e-14 * n if spread < 1e3 else 1)
    if spread == 1.0:
        np.testing.assert_allclose(A.sum(axis=0), 1, rtol=1e-9)
        ratio = A[0, 0] * A[-1, -1] / (A[0, -1] * A[-1, 0])  # which scaling preserves
        z = logits[::-1]
        expected = np.exp(z[0, 0] + z[-1, -1] - z[0, -1] - z[-1, 0])
        assert ratio == pytest.approx(expected, rel=1e-9)


def test_sinkhorn_takes_columns_first():
    e = np.array([[2.0, 1, 3], [1, 5, 1], [4, 1, 2]])
    once = e / e.sum(axis=0)
    once /= once.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(microgpt.sinkhorn(np.log(e), 1), once, rtol=1e-14)
    twice = once / once.sum(axis=0)
    twice /= twice.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(microgpt.sinkhorn(np.log(e), 2), twice, rtol=1e-14)


@pytest.mark.parametrize(
    ("logits", "iterations", "name"),
    [
        (np.zeros((0, 0)), 1, r"logits has shape \(0, 0\)"),
        (np.zeros((2, 3)), 1, r"logits has shape \(2, 3\)"),
        (np.zeros(2), 1, "logits has shape"),
        (np.zeros((2, 2, 2)), 1, "logits has shape"),
        ([[2e300]], 1, "logits holds"),
        ([[math.inf]], 1, "logits holds"),
        ([[math.nan, 0], [0, 0]], 1, "logits holds"),
        ([[0.0]], 0, "iterations is 0"),
        ([[0.0]], 2.0, r"iterations is 2\.0"),
        ([[0.0]], True, "iterations is True"),
    ],
)
def test_sinkhorn_refuses(logits, iterations, name):
    with pytest.raises(ValueError, match=name):
        microgpt.sinkhorn(logits, iterations)


def test_sinkhorn_takes_numbers_up_to_the_limit():
    assert microgpt.sinkhorn([[1e300]], 1) == 1
