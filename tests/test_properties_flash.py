"""The kernels that tiled attention is made of, one by one, on whole tiles."""

import functools

import numpy as np
import pytest
from bounds import DTYPES, MILD, check, draws, long, same_numbers, sizes
from hypothesis import given
from hypothesis import strategies as st

from microgpt import attention, flash
from microgpt.matrix import exponential

FEW = st.integers(2, 5)  # not 1: numba compiles anew for arrays with but one axis


@given(draws(), FEW, FEW, FEW, st.data())
@pytest.mark.equation("flash-lanes")
def test_tiles_are_loaded_and_stored(x, B, d, G, data):
    """Rows (h0 + g) d + c of x, columns start + i; nothing else is read or written."""
    h0, start = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 3))
    n, factor = data.draw(st.integers(1, B)), x.number()
    a = x((h0 + G + 1) * d, start + B + 2)
    rows = a[h0 * d : (h0 + G) * d, start : start + n].reshape(G, d, n)
    with np.errstate(all="ignore"):
        tile = x.garbage(B, d, G)
        flash.load_rows(a, h0, start, n, factor, tile)
        same_numbers(tile[:n], factor * rows.transpose(2, 1, 0))
        same_numbers(tile[n:], x.garbage(B - n, d, G))
        tile = x.garbage(d, B, G)
        flash.load_columns(a, h0, start, n, factor, tile)
        same_numbers(tile[:, :n], factor * rows.transpose(1, 2, 0))
        same_numbers(tile[:, n:], x.garbage(d, B - n, G))
        for store, shape, axes, more in (
            (flash.store_rows, (B, d, G), (2, 1, 0), (factor,)),
            (flash.store_columns, (d, B, G), (2, 0, 1), ()),
        ):
            tile, out = x(*shape), np.full_like(a, 7)
            store(tile, h0, start, n, *more, out)
            used = tile[:n] if more else tile[:, :n]
            used = used.transpose(axes).reshape(G * d, n)
            expected = np.full_like(a, 7)
            block = factor * used if more else used
            expected[h0 * d : (h0 + G) * d, start : start + n] = block
            same_numbers(out, expected)


@given(draws(), FEW, FEW, FEW, st.data())
def test_numbers_of_a_tile(x, B, d, G, data):
    """fill_stack, scale_rows, reciprocal, store_statistics: element by element."""
    a, factor, n = x(B, d, G), x(B, G), data.draw(st.integers(1, d))
    with np.errstate(all="ignore"):
        scaled = a.copy("F")
        flash.scale_rows(scaled, n, factor)
        same_numbers(scaled[:, :n], a[:, :n] * factor[:, None])
        same_numbers(scaled[:, n:], a[:, n:])
        out = x.garbage(B, G)
        flash.reciprocal(factor, out)
        same_numbers(out, 1 / factor)
        flash.fill_stack(a, factor[0, 0])
        same_numbers(a, np.full_like(a, factor[0, 0]))
    n, m, l = (
        data.draw(st.integers(1, B)),
        x.garbage(G + 3, B + 4),
        x.garbage(G + 3, B + 4),
    )
    tile_m, tile_l = x(B, G), x(B, G)
    flash.store_statistics(tile_m, tile_l, 2, 3, n, m, l)
    for found, tile in ((m, tile_m), (l, tile_l)):
        expected = x.garbage(G + 3, B + 4)
        expected[2 : G + 2, 3 : n + 3] = tile[:n].T
        same_numbers(found, expected)


@given(st.sampled_from(DTYPES), FEW, FEW, FEW, st.data())
@pytest.mark.equation("flash-mask", "attention-mask")
def test_masks(dtype, B, keys, G, data):
    """Key j0 + j is hidden from query i0 + i where it comes later."""
    n, n_keys = data.draw(st.integers(1, B)), data.draw(st.integers(1, keys))
    i0, j0 = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 6))
    s = np.ones((B, keys, G), dtype, order="F")
    flash.mask_tile(s, n, n_keys, j0, i0)
    i, j = np.arange(B)[:, None], np.arange(keys)
    hidden = (j0 + j > i0 + i) & (i < n) & (j < n_keys)
    same_numbers(
        s, np.where(hidden[:, :, None], -np.inf, np.ones_like(s)).astype(dtype)
    )
    s = np.ones((keys, B), dtype, order="F")
    attention.causal_mask(s)
    same_numbers(s, np.where(np.tri(keys, B, k=-1) > 0, -np.inf, 1).astype(dtype))


ROWS = st.sampled_from([8, 16, 24])
TILE = st.tuples(ROWS, st.integers(2, 13), st.integers(2, 3))


@pytest.mark.equation("flash-online")
def test_running_statistics_of_any_number_of_keys():
    """Each key counts once, whichever of the two loops takes it, and no others do."""
    for n_keys in range(1, 27):
        for last in range(n_keys):
            s, m = np.zeros((8, n_keys + 1, 1), order="F"), np.zeros((8, 1), order="F")
            s[:, n_keys], s[:, last], correction, l = 9.0, 1.0, m.copy("F"), m.copy("F")
            flash.running_maximum(s, n_keys, m, correction)
            flash.running_sum(s, n_keys, correction, l)
            assert (m == 1).all() and (correction == -1).all() and (l == 1).all()


@given(draws(MILD), TILE, st.data())
@pytest.mark.equation("flash-online")
def test_the_running_softmax(x, shape, data):
    """Maximum, weights and sum of a tile of keys; rows that nobody uses, too."""
    (B, keys, G), n_keys = shape, shape[1] - data.draw(st.integers(0, 1))
    n = data.draw(st.integers(1, B))
    s, m, correction = x(B, keys, G), x(B, G), x.garbage(B, G)
    new = np.maximum(m, s[:, :n_keys].max(axis=1))
    found = m.copy("F")
    flash.running_maximum(s, n_keys, found, correction)
    same_numbers(found, new)
    same_numbers(correction, m - new)
    rows, p = -(-n // 8) * 8, s.copy("F")
    flash.exponential_below(p, n, n_keys, new)
    exact = np.exp(long(s)[0] - long(new)[0][:, None])[:rows, :n_keys]
    far = abs(long(s)[0] - long(new)[0][:, None])[:rows, :n_keys]
    check(p[:rows, :n_keys], exact, exact * (far + 1), 6)
    below = np.asfortranarray(s[:rows, 0] - new[:rows])
    exponential(below)
    same_numbers(p[:rows, 0], below)
    same_numbers(p[rows:], s[rows:])
    same_numbers(p[:, n_keys:], s[:, n_keys:])
    factor, l, a = x.positive(B, G), x.positive(B, G), abs(p)
    exact = long(l)[0] * factor + long(a)[0][:, :n_keys].sum(axis=1)
    flash.running_sum(a, n_keys, factor, l)
    check(l, exact, exact, n_keys + 2)


@given(draws(MILD), ROWS, st.integers(2, 9), st.integers(2, 3), st.data())
@pytest.mark.equation("flash-recompute", "flash-score-gradient", "flash-delta")
def test_parts_of_the_backward_pass(x, B, d, G, data):
    n_keys, n = data.draw(st.integers(1, d)), data.draw(st.integers(1, B))
    e, dp, delta = x.positive(B, d, G), x(B, d, G), x(B, G)
    inverse, p, ds = x.positive(B, G), e.copy("F"), dp.copy("F")
    le, ldp, li, ldelta = long(e, dp, inverse, delta)
    flash.score_gradient(p, n, n_keys, inverse, delta, ds)
    used = slice(-(-n // 8) * 8), slice(n_keys)
    exact = le * li[:, None]
    check(p[used], exact[used], exact[used], 1)
    size = exact * (abs(ldp) + abs(ldelta[:, None]))
    check(ds[used], (exact * (ldp - ldelta[:, None]))[used], size[used], 4)
    for found, before in ((p, e), (ds, dp)):
        same_numbers(found[used[0].stop :], before[used[0].stop :])
        same_numbers(found[:, n_keys:], before[:, n_keys:])
    H, N = G + 1, B + 3  # one head before the group, two positions before the tile
    do, o, m, l = x(H * d, N), x(H * d, N), x(H, N), x.positive(H, N)
    tile_m, inverse, delta = (x.garbage(B, G) for _ in range(3))
    flash.load_statistics(do, o, m, l, 1, 2, n, tile_m, inverse, delta)
    same_numbers(tile_m[:n], m[1:, 2 : n + 2].T)
    same_numbers(inverse[:n], 1 / l[1:, 2 : n + 2].T)
    products = (long(do)[0] * long(o)[0]).reshape(H, d, N)[1:, :, 2 : n + 2]
    check(delta[:n], products.sum(axis=1).T, abs(products).sum(axis=1).T, 2 * d)
    for y in (tile_m, inverse, delta):
        assert not y[n:].any()


@given(sizes(5), sizes(70), sizes(12), sizes(150))
def test_shapes_of_the_workspace(d, tile, n_head, n):
    """Groups divide the heads and are as large as 4,096 scores allow."""
    shapes = flash.flash_shapes(d, tile, n_head, n)
    B, keys, G = shapes.s
    tiles = shapes.q_t[3]
    assert keys == min(tile, n) and B % 16 == 0 and keys <= B < keys + 16
    assert (tiles - 1) * keys < n <= tiles * keys
    assert n_head % G == 0 and (G == 1 or G * B * B <= 4096)
    larger = [g for g in range(G + 1, n_head + 1) if n_head % g == 0]
    assert all(g * B * B > 4096 for g in larger)
    assert shapes.dp == shapes.s and shapes.correction == (B, G)
    assert shapes.k == shapes.v == shapes.dk == shapes.dv == (d, keys, G)
    assert shapes.q == shapes.do == (d, B, G, tiles)
    assert shapes.q_t == shapes.do_t == shapes.dq_t == (B, d, G, tiles)
    assert shapes.m == shapes.l == shapes.delta == (B, G, tiles)
    w = flash.flash_workspace(d, tile, n_head, n, "float32")
    assert tuple(y.shape for y in w) == tuple(shapes)
    assert all(y.dtype == "float32" and not y.any() for y in w)


@pytest.mark.parametrize(
    ("tile", "n_head", "G"), [(16, 16, 16), (16, 17, 1), (32, 4, 4)]
)
def test_a_group_may_fill_its_4096_scores(tile, n_head, G):
    assert flash.flash_shapes(3, tile, n_head, tile).s[2] == G


def test_the_heads_are_shared_out():
    for n_head in (1, 3, 8):
        for threads in (1, 2, 3, 20):
            seen = []
            share = functools.partial(lambda seen, *heads: seen.append(heads), seen)
            flash.share_heads(share, n_head, threads)
            found = sorted(h for a, b in seen for h in range(a, b))
            assert found == list(range(n_head))
            assert len(seen) == min(threads, n_head)
            assert max(b - a for a, b in seen) - min(b - a for a, b in seen) <= 1
