"""Naive and tiled attention against each other, a third version, and brute force."""

import numpy as np
import pytest
import reference

import microgpt
from microgpt import flash

SIZES = [(12, 3, 7, 2), (12, 3, 1, 4), (10, 5, 17, 5), (6, 1, 23, 7), (8, 2, 9, 64)]


def arrays(C, N, count=4, dtype="float64", spread=2.0):
    rng = np.random.default_rng(C * N)
    draws = rng.normal(0, spread, (count, C, N)).astype(dtype)
    return [np.asfortranarray(x) for x in draws]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("C", "n_head", "N", "tile"), SIZES)
@pytest.mark.equation(
    "attention-forward", "attention-mask", "flash-forward", "flash-online"
)
def test_forward(C, n_head, N, tile, causal):
    q, k, v, _ = arrays(C, N)
    expected = reference.attention(q.T, k.T, v.T, n_head, causal).T
    o, p = microgpt.naive_attention(q, k, v, n_head, causal)
    np.testing.assert_allclose(o, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(p.sum(axis=0), 1, rtol=1e-12)
    o, m, l = microgpt.flash_attention(q, k, v, n_head, tile, causal)
    np.testing.assert_allclose(o, expected, rtol=1e-12, atol=1e-13)
    assert m.shape == l.shape == (n_head, N)
    d = C // n_head
    for h in range(n_head):
        rows = slice(h * d, (h + 1) * d)
        s = k[rows].T @ q[rows] / np.sqrt(d)
        if causal:
            s[np.tril_indices(N, -1)] = -np.inf
        np.testing.assert_allclose(m[h], s.max(axis=0), rtol=1e-12)
        np.testing.assert_allclose(l[h], np.exp(s - s.max(axis=0)).sum(axis=0))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("C", "n_head", "N", "tile"), SIZES)
@pytest.mark.equation("attention-backward", "flash-backward", "flash-recompute")
def test_backward(C, n_head, N, tile, causal):
    q, k, v, do = arrays(C, N)
    _, p = microgpt.naive_attention(q, k, v, n_head, causal)
    naive = microgpt.naive_attention_backward(do, q, k, v, p, n_head)
    o, m, l = microgpt.flash_attention(q, k, v, n_head, tile, causal)
    tiled = microgpt.flash_attention_backward(
        do, q, k, v, o, m, l, n_head, tile, causal
    )
    for name, a, b in zip("qkv", naive, tiled, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-11, err_msg=name)
    inputs = [x.astype(complex) for x in (q, k, v)]
    for x, dx in zip(inputs, tiled, strict=True):
        for index in np.ndindex(x.shape):
            x[index] += 1e-30j
            out = reference.attention(*(y.T for y in inputs), n_head, causal).T
            x[index] -= 1e-30j
            expected = (out.imag / 1e-30 * do).sum()
            assert dx[index] == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("tile", [1, 3, 4, 6, 16, 40])
@pytest.mark.parametrize("N", [1, 5, 12, 13])
def test_queries_may_be_the_last_positions_only(N, tile):
    """As with cached keys and values: o, dq, dk and dv of the last N of M positions."""
    C, n_head, M = 10, 5, 13
    q, k, v, do = arrays(C, M)
    do[:, : M - N] = 0  # then nothing comes back from the queries that are left out
    expected_o, p = microgpt.naive_attention(q, k, v, n_head)
    expected = microgpt.naive_attention_backward(do, q, k, v, p, n_head)
    q, do = (np.asfortranarray(x[:, M - N :]) for x in (q, do))
    o, dq, dk, dv = (np.zeros_like(x) for x in (q, q, k, v))
    m, l = (np.zeros((n_head, N), order="F") for _ in range(2))
    w = flash.flash_workspace(C // n_head, tile, n_head, N, "float64")
    flash.flash_forward(q, k, v, 0, n_head, True, o, m, l, w)
    flash.flash_backward(do, q, k, v, o, m, l, 0, n_head, True, dq, dk, dv, w)
    np.testing.assert_allclose(o, expected_o[:, M - N :], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(dq, expected[0][:, M - N :], rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(dk, expected[1], rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(dv, expected[2], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("attend", ["naive", "flash"])
@pytest.mark.equation("attention-mask", "flash-mask")
def test_no_position_sees_a_later_one(attend):
    """Brute force: change key and value j, and see which outputs move."""
    C, N, n_head = 6, 11, 3
    q, k, v, _ = arrays(C, N)

    def output():
        if attend == "naive":
            return microgpt.naive_attention(q, k, v, n_head)[0]
        return microgpt.flash_attention(q, k, v, n_head, 4)[0]

    before = output()
    for j in range(N):
        k[:, j] += 1.0
        v[:, j] += 1.0
        after = output()
        k[:, j] -= 1.0
        v[:, j] -= 1.0
        moved = np.abs(after - before).max(axis=0) > 1e-9
        assert moved.tolist() == [i >= j for i in range(N)]


@pytest.mark.equation("matrix-softmax-shift", "flash-online")
def test_large_scores_do_not_overflow():
    q, k, v, do = arrays(8, 13, spread=1e3)
    for dtype in ("float64", "float32"):
        a = [np.asfortranarray(x, dtype=dtype) for x in (q, k, v, do)]
        o, m, l = microgpt.flash_attention(*a[:3], 2, 4)
        grads = microgpt.flash_attention_backward(a[3], *a[:3], o, m, l, 2, 4)
        assert np.isfinite(o).all() and all(np.isfinite(g).all() for g in grads)
        np.testing.assert_allclose(o, microgpt.naive_attention(*a[:3], 2)[0], rtol=1e-4)


@pytest.mark.parametrize("tile", [1, 3, 8, 50])
def test_float32_stays_float32(tile):
    q, k, v, do = arrays(8, 13, dtype="float32")
    o, m, l = microgpt.flash_attention(q, k, v, 2, tile)
    grads = microgpt.flash_attention_backward(do, q, k, v, o, m, l, 2, tile)
    assert {x.dtype.name for x in (o, m, l, *grads)} == {"float32"}
    expected = reference.attention(q.T, k.T, v.T, 2).T
    np.testing.assert_allclose(o, expected, rtol=1e-4, atol=1e-5)


def test_bad_arrays_are_refused_by_name():
    q, k, v, do = arrays(8, 13)
    o, p = microgpt.naive_attention(q, k, v, 2)
    _, m, l = microgpt.flash_attention(q, k, v, 2)
    row_major = np.ascontiguousarray(k)
    for attend in (microgpt.naive_attention, microgpt.flash_attention):
        with pytest.raises(ValueError, match=r"^k .*\(8, 13\).*column-major"):
            attend(q, row_major, v, 2)
        with pytest.raises(ValueError, match=r"^v has shape \(8, 12\).*\(8, 13\)"):
            attend(q, k, np.asfortranarray(v[:, :12]), 2)
        with pytest.raises(TypeError, match=r"^v .*float32"):
            attend(q, k, v.astype("float32"), 2)
        with pytest.raises(TypeError, match=r"^q .*list"):
            attend(q.tolist(), k, v, 2)
        with pytest.raises(TypeError, match=r"^q .*int64"):
            attend(q.astype("int64"), k, v, 2)
        with pytest.raises(ValueError, match="n_head is 3"):
            attend(q, k, v, 3)
    with pytest.raises(ValueError, match=r"^p "):
        microgpt.naive_attention_backward(do, q, k, v, p[:, :, :1], 2)
    with pytest.raises(ValueError, match=r"^do "):
        microgpt.naive_attention_backward(do[:4], q, k, v, p, 2)
    with pytest.raises(ValueError, match=r"^l "):
        microgpt.flash_attention_backward(do, q, k, v, o, m, l[:, :5], 2)
    with pytest.raises(ValueError, match="tile is 0"):
        microgpt.flash_attention(q, k, v, 2, tile=0)


@pytest.mark.equation("hyper-sinkhorn", "hyper-sinkhorn-two")
def test_sinkhorn():
    logits = np.random.default_rng(1).normal(0, 3, (4, 4))
    A = microgpt.sinkhorn(logits, 200)
    np.testing.assert_allclose(A.sum(axis=0), 1, atol=1e-12)
    np.testing.assert_allclose(A.sum(axis=1), 1, atol=1e-12)
    assert (A > 0).all()
    a, b, c, d = 0.3, -1.2, 2.0, 0.7
    t = 1 / (1 + np.exp(-(a + d - b - c) / 2))
    A = microgpt.sinkhorn([[a, b], [c, d]], 100)
    np.testing.assert_allclose(A, [[t, 1 - t], [1 - t, t]], atol=1e-12)
    for bad in ([1.0, 2.0], [[1.0, 2.0]], [[np.nan, 0.0], [0.0, 0.0]]):
        with pytest.raises(ValueError, match="logits"):
            microgpt.sinkhorn(bad, 3)
    with pytest.raises(ValueError, match="iterations"):
        microgpt.sinkhorn(logits, 0)
