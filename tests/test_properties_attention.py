"""Naive and tiled attention, and the kernels they are made of, within stated bounds."""

import math

import numba
import numpy as np
import pytest
from bounds import DTYPES, LONG, MILD, Draw, check, draws, long, same_numbers, sizes
from hypothesis import given
from hypothesis import strategies as st

import microgpt
from microgpt import flash

# (d, n_head, N). numba compiles anew for arrays that have but one axis longer than 1,
# so sizes of 1 are tried in Python; test_attention.py has some for compiled code.
SHAPES = st.tuples(st.integers(2, 4), st.integers(2, 4), st.integers(2, 13))
if numba.config.DISABLE_JIT:
    SHAPES |= st.tuples(sizes(3), sizes(3), sizes(5))
TILES = st.sampled_from([1, 2, 3, 4, 5, 7, 16, 17, 64])


def exact_attention(q, k, v, n_head, causal):
    """Output, probabilities (n_head x keys x queries) and scores in long double."""
    q, k, v = (np.split(x, n_head) for x in long(q, k, v))
    hidden = np.tri(q[0].shape[1], k=-1, dtype=bool)
    out, ps, ss = [], [], []
    for qh, kh, vh in zip(q, k, v, strict=True):
        s = kh.T @ qh / np.sqrt(LONG(len(qh)))
        if causal:
            s = np.where(hidden, -np.inf, s)
        p = np.exp(s - s.max(axis=0))
        p /= p.sum(axis=0)
        out.append(vh @ p)
        ps.append(p)
        ss.append(s)
    return np.vstack(out), np.array(ps), np.array(ss)


def exact_gradients(do, q, k, v, p, n_head):
    """dq, dk, dv by the chain rule, with explicit sums, and the sizes of these sums."""
    do, q, k, v = (np.split(x, n_head) for x in long(do, q, k, v))
    results = []
    for doh, qh, kh, vh, ph in zip(do, q, k, v, p, strict=True):
        root = np.sqrt(LONG(len(qh)))
        dp, big = vh.T @ doh, abs(vh).T @ abs(doh)
        ds = ph * (dp - (ph * dp).sum(axis=0)) / root
        most = ph * (big + (ph * big).sum(axis=0)) / root
        exact = kh @ ds, qh @ ds.T, doh @ ph.T
        bound = abs(kh) @ most, abs(qh) @ most.T, abs(doh) @ ph.T
        results.append([*exact, *bound])
    return [np.vstack(x) for x in zip(*results, strict=True)]


def operations(q, k, n_head):
    """What n in `check` is for attention with N keys and heads of d rows.

    A score has an error of (d + 2) u times the sum S of the magnitudes of its products,
    and so has its exponent; e^x adds (2 |x| + 6) u, and |x| <= 2 S; subtracting the
    running maximum and correcting for its changes add as much again in every tile, at
    most once for every key. Sums over N keys add N u. All this is relative to a weight.
    """
    d, N = q.shape[0] // n_head, q.shape[1]
    S = max(
        (abs(a).T @ abs(b)).max() / math.sqrt(d)
        for a, b in zip(np.split(k, n_head), np.split(q, n_head), strict=True)
    )
    return 2 * (d + 6) * (1 + float(S)) + 3 * N + 2 * d + 20


@given(draws(MILD), SHAPES, TILES, st.booleans(), sizes(3))
@pytest.mark.equation("attention-forward", "flash-forward", "attention-backward")
@pytest.mark.equation("flash-backward")
def test_both_attentions(x, shape, tile, causal, threads):
    """Forward and backward, naive and tiled, within the bound of `operations`."""
    (d, n_head, N), H = shape, shape[1]
    q, k, v, do = (x(d * n_head, N) for _ in range(4))
    n = operations(q, k, n_head)
    exact, p, s = exact_attention(q, k, v, n_head, causal)
    _, _, big = exact_attention(q, k, abs(v), n_head, causal)
    size = np.vstack(
        [abs(a) @ b for a, b in zip(np.split(long(v)[0], H), p, strict=True)]
    )
    expected = exact_gradients(do, q, k, v, p, n_head)
    with np.errstate(all="ignore"):
        naive, weights = microgpt.naive_attention(q, k, v, n_head, causal)
        check(naive, exact, size, n, "naive")
        check(weights, p.transpose(1, 2, 0), p.transpose(1, 2, 0), n, "p")
        o, m, l = microgpt.flash_attention(q, k, v, n_head, tile, causal, threads)
        check(o, exact, size, n, "flash")
        check(
            m,
            s.max(axis=1),
            abs(big).max(axis=1, where=np.isfinite(big), initial=0)
            + abs(s.max(axis=1)),
            4 * n,
            "m",
        )
        total = np.exp(s - s.max(axis=1)[:, None]).sum(axis=1)
        check(l, total, total, n, "l")
        found = microgpt.naive_attention_backward(do, q, k, v, weights, n_head)
        for name, y, z, big in zip(
            "qkv", found, expected[:3], expected[3:], strict=True
        ):
            check(y, z, big, 3 * n, f"naive d{name}")
        found = microgpt.flash_attention_backward(
            do, q, k, v, o, m, l, n_head, tile, causal, threads
        )
        for name, y, z, big in zip(
            "qkv", found, expected[:3], expected[3:], strict=True
        ):
            check(y, z, big, 3 * n, f"flash d{name}")


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("d", "n_head", "N", "M", "tile"),
    [(2, 3, 5, 11, 3), (3, 2, 7, 9, 2), (2, 2, 11, 11, 2), (2, 2, 2, 9, 16),
     (2, 2, 35, 35, 64), (2, 2, 4, 5, 1)],
)  # fmt: skip
@pytest.mark.equation("flash-mask", "flash-lanes")
def test_later_queries_and_a_used_workspace(d, n_head, N, M, tile, causal):
    """The last N of M positions as queries; what a workspace held before is forgotten.

    With 11 positions and tiles of 2 it has room for fewer queries than there are; with
    tiles of 35 each head has a group of its own.
    """
    x = Draw("float64", "normal", N)
    q, k, v, do = (x(d * n_head, M) for _ in range(4))
    do[:, : M - N] = 0
    n = operations(q, k, n_head)
    exact, p, _ = exact_attention(q, k, v, n_head, causal)
    expected = exact_gradients(do, q, k, v, p, n_head)
    q, do = (np.asfortranarray(y[:, M - N :]) for y in (q, do))
    for held, threads in ((N, 1), (min(N, 4 * tile), 2), (min(N, tile), 1)):
        o, dq, dk, dv = (np.full_like(y, np.nan) for y in (q, q, k, v))
        m, l = (np.full((n_head, N), np.nan, order="F") for _ in range(2))
        for first in range(0, n_head, -(-n_head // threads)):
            heads = first, min(first + -(-n_head // threads), n_head)
            w = flash.flash_workspace(d, tile, heads[1] - heads[0], held, "float64")
            for y in w:
                y.fill(np.nan)
            flash.flash_forward(q, k, v, *heads, causal, o, m, l, w)
            w = flash.flash_workspace(d, tile, heads[1] - heads[0], N, "float64")
            for y in w:
                y.fill(np.nan)
            flash.flash_backward(do, q, k, v, o, m, l, *heads, causal, dq, dk, dv, w)
        check(o, exact[:, M - N :], abs(exact[:, M - N :]) + 9, n, "o")
        check(dq, expected[0][:, M - N :], expected[3][:, M - N :], 3 * n, "dq")
        check(dk, expected[1], expected[4], 3 * n, "dk")
        check(dv, expected[2], expected[5], 3 * n, "dv")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("value", [1e4, 1e15])
def test_scores_of_any_size_give_finite_answers(dtype, causal, value):
    """A score far below the largest has the weight 0; squares of 1e15 are no overflow.

    Beyond, where a score is no number of the type, the answer is no number, either.
    """
    x = Draw(dtype, "normal", 3)
    q, k, v, do = (x(8, 9) for _ in range(4))  # d = 4: scores are exact, ties are ties
    q, k = np.sign(q) * q.dtype.type(value), np.sign(k) * k.dtype.type(value)
    with np.errstate(all="ignore"):
        naive, p = microgpt.naive_attention(q, k, v, 2, causal)
        o, m, l = microgpt.flash_attention(q, k, v, 2, 4, causal)
        np.testing.assert_allclose(o, naive, rtol=1e-5)
        assert np.isfinite(o).all() and np.isfinite(m).all() and (l >= 1).all()
        found = microgpt.flash_attention_backward(do, q, k, v, o, m, l, 2, 4, causal)
        expected = microgpt.naive_attention_backward(do, q, k, v, p, 2)
        top = 1e-3 if dtype == "float32" else 1e-9
        for y, z in zip(found, expected, strict=True):
            np.testing.assert_allclose(y, z, rtol=1e-4, atol=top * abs(z).max() + 1e-30)
        if dtype == "float32":
            o = microgpt.flash_attention(q * q, k * k, v, 2, 4, causal)[0]
            assert value < 1e15 or np.isnan(o).all()


@given(st.sampled_from(DTYPES), st.integers(0, 10**6), TILES, st.booleans())
def test_one_bad_number_reaches_what_depends_on_it(dtype, seed, tile, causal):
    """nan in q: its query; in k or v: every query that sees the key; nothing else.

    An infinite score of either sign: +inf gives nan in both versions; -inf is a weight
    of 0 in both, also where it is all that a tile of keys holds.
    """
    x = Draw(dtype, "normal", seed)
    q, k, v = (x(4, 9) for _ in range(3))
    clean, which, at = [q, k, v], seed % 3, int(x.rng.integers(9))
    with np.errstate(all="ignore"):
        before = microgpt.flash_attention(*clean, 2, tile, causal)[0]
        bad = [y.copy("F") for y in clean]
        bad[which][1, at] = np.nan
        after = microgpt.flash_attention(*bad, 2, tile, causal)[0]
        reached = np.isnan(after)
        queries = np.arange(9) == at if which == 0 else np.arange(9) >= at
        queries = queries | (which > 0 and not causal)
        rows = [1] if which == 2 else [0, 1]
        assert reached[np.ix_(rows, queries)].all()
        assert not reached[2:].any()
        same_numbers(after[2:], before[2:])
        if which < 2:
            assert not reached[:, ~queries].any()
        for sign in (np.inf, -np.inf):
            bad[1] = k.copy("F")
            bad[0], bad[2] = abs(q) + q.dtype.type(1), v
            bad[1][1, at] = sign
            o = microgpt.flash_attention(*bad, 2, tile, causal)[0]
            naive = microgpt.naive_attention(*bad, 2, causal)[0]
            np.testing.assert_allclose(o, naive, rtol=1e-3, atol=1e-4)
            alone = causal and at == 0  # the first query sees no other key
            assert np.isfinite(o).all() == (sign < 0 and not alone)


@pytest.mark.parametrize("tile", [1, 2, 16])
def test_a_query_without_a_finite_score_has_no_answer(tile):
    """Query 0 sees key 0 only, whose score is -inf; the others have more to see."""
    x = Draw("float64", "normal", 1)
    q, k, v = abs(x(4, 9)), x(4, 9), x(4, 9)
    k[0, 0] = -np.inf
    with np.errstate(all="ignore"):
        o = microgpt.flash_attention(q, k, v, 2, tile)[0]
        naive = microgpt.naive_attention(q, k, v, 2)[0]
    assert np.isnan(o[:2, 0]).all() and np.isfinite(o).sum() == o.size - 2
    np.testing.assert_allclose(o, naive, rtol=1e-12)


LAYOUTS = {
    "float16": lambda x: x.astype("float16"),
    "integers": lambda x: x.astype("int64"),
    "complex": lambda x: x.astype("complex128"),
    "other bytes": lambda x: x.astype(x.dtype.newbyteorder()),
    "list": lambda x: x.tolist(),
    "rows": np.ascontiguousarray,
    "every second column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed": lambda x: x[:, ::-1],
    "some rows": lambda x: np.asfortranarray(np.repeat(x, 2, axis=0))[::2],
    "a vector": lambda x: x.ravel(),
    "a stack": lambda x: np.asfortranarray(x[:, :, None].repeat(2, axis=2)),
    "nothing": lambda x: x[:, :0],
    "None": lambda x: None,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_arrays_are_refused_by_name(layout):
    x = Draw("float64", "normal", 1)
    q, k, v, do = (x(6, 5) for _ in range(4))
    o, m, l = microgpt.flash_attention(q, k, v, 2)
    p = microgpt.naive_attention(q, k, v, 2)[1]
    calls = {
        microgpt.naive_attention: {"q": q, "k": k, "v": v},
        microgpt.flash_attention: {"q": q, "k": k, "v": v},
        microgpt.naive_attention_backward: {"do": do, "q": q, "k": k, "v": v, "p": p},
        microgpt.flash_attention_backward: {
            "do": do, "q": q, "k": k, "v": v, "o": o, "m": m, "l": l,
        },
    }  # fmt: skip
    for function, arrays in calls.items():
        for name in arrays:
            if name == "p" and layout == "a stack":
                continue
            spoilt = arrays | {name: LAYOUTS[layout](arrays[name])}
            with pytest.raises((TypeError, ValueError), match=rf"^{name} (is|has|of)"):
                function(**spoilt, n_head=2)


@pytest.mark.parametrize("n_head", [0, -1, 4, 12, 2.0, None, "2", True])
def test_other_numbers_of_heads_are_refused(n_head):
    q = np.zeros((6, 5), order="F")
    for function in (microgpt.naive_attention, microgpt.flash_attention):
        with pytest.raises(ValueError, match=r"^n_head is"):
            function(q, q, q, n_head)
    for name in ("tile", "threads"):
        for bad in (0, -1, 1.5, None, True):
            with pytest.raises(ValueError, match=f"^{name} is"):
                microgpt.flash_attention(q, q, q, 2, **{name: bad})
            m = np.ones((2, 5), order="F")
            with pytest.raises(ValueError, match=f"^{name} is"):
                microgpt.flash_attention_backward(q, q, q, q, q, m, m, 2, **{name: bad})


def test_probabilities_must_fit():
    x = Draw("float64", "normal", 1)
    q = x(6, 5)
    o, p = microgpt.naive_attention(q, q, q, 2)
    for bad in (p[:4], p[:, :4], p[:, :, :1], p[:, :, 0]):
        with pytest.raises(ValueError, match=r"^p has shape .*; expected \(5, 5, 2\)"):
            microgpt.naive_attention_backward(o, q, q, q, bad, 2)
    with pytest.raises(TypeError, match=r"^p is array of float32; .* float64"):
        microgpt.naive_attention_backward(o, q, q, q, p.astype("f4"), 2)
    with pytest.raises(TypeError, match=r"^p is list; "):
        microgpt.naive_attention_backward(o, q, q, q, p.tolist(), 2)
    with pytest.raises(ValueError, match=r"^p of shape .*column-major.*asfortran"):
        microgpt.naive_attention_backward(o, q, q, q, np.ascontiguousarray(p), 2)


def test_arrays_may_be_read_only():
    x = Draw("float64", "normal", 1)
    q, k, v, do = (x(6, 5) for _ in range(4))
    arrays = [y.copy("F") for y in (do, q, k, v)]
    for y in arrays:
        y.flags.writeable = False
    o, p = microgpt.naive_attention(q, k, v, 1)  # one head is not copied
    same_numbers(microgpt.naive_attention(*arrays[1:], 1)[0], o)
    expected = microgpt.naive_attention_backward(do, q, k, v, p, 1)
    p.flags.writeable = False
    found = microgpt.naive_attention_backward(*arrays, p, 1)
    for a, b in zip(found, expected, strict=True):
        same_numbers(a, b)
    o, m, l = microgpt.flash_attention(q, k, v, 2, 2)
    expected = microgpt.flash_attention_backward(do, q, k, v, o, m, l, 2, 2)
    found = microgpt.flash_attention(*arrays[1:], 2, 2)
    for a, b in zip(found, (o, m, l), strict=True):
        same_numbers(a, b)
        b.flags.writeable = False
    found = microgpt.flash_attention_backward(*arrays, o, m, l, 2, 2)
    for a, b in zip(found, expected, strict=True):
        same_numbers(a, b)
