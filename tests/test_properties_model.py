"""The kernels of model, training and sampling, and what they make together."""

import math
import random
import threading

import numba
import numpy as np
import pytest
import reference
from bounds import DTYPES, LONG, Draw, check, draws, long, same_numbers, sizes
from hypothesis import given
from hypothesis import strategies as st

import microgpt
from microgpt import model, sampling, training
from microgpt.flash import flash_workspace

FEW = st.integers(2, 7)  # sizes of 1 have tests of their own: numba compiles anew
TOKENS = [4, 2, 0, 3, 3, 1, 4, 2]


def documents(rng, count, most=4):
    """The columns after the last one of each document."""
    return np.cumsum(rng.integers(1, most + 1, count))


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_begins_with_a_cache_line(dtype):
    """The model's, what training adds, and the workspace of long sequences."""
    gpt = microgpt.GPT(microgpt.GPTConfig(27), random.Random(1), dtype)
    state = training.training_state(gpt, 9, 2)
    arrays = [gpt.weights, gpt.gradient, gpt.activations[0], gpt.workspace[0]]
    arrays += [
        state.gradients,
        state.m,
        state.v,
        state.a[0]["x"],
        state.w[1]["weights"],
    ]
    arrays += [flash_workspace(3, 5, 2, 9, dtype)[0]]
    assert [x.ctypes.data % 64 for x in arrays] == [0] * len(arrays)


@given(draws(), FEW, FEW, sizes(3), st.booleans())
@pytest.mark.equation("model-embed", "model-embed-backward", "model-documents")
def test_embeddings(x, C, V, count, continued):
    """One sum for every number; a gradient is a sum over the documents."""
    ends = documents(x.rng, count)
    T, start = ends[-1], int(x.rng.integers(ends[-1])) if continued else 0
    tokens, wte, wpe, out = x.rng.integers(0, V, T), x(C, V), x(C, 5), x.garbage(C, T)
    begins = np.concatenate([[0], ends[:-1]])
    place = np.concatenate(
        [np.arange(b - a) for a, b in zip(begins, ends, strict=True)]
    )
    with np.errstate(all="ignore"):
        model.embed(tokens[start:], ends, start, wte, wpe, out)
        same_numbers(out[:, start:], wte[:, tokens[start:]] + wpe[:, place[start:]])
        same_numbers(out[:, :start], x.garbage(C, start))
        dx, dwte, dwpe = x(C, T), x.plain(C, V), x.plain(C, 5)
        expected = long(dwte, dwpe)
        size = [abs(y) for y in expected]
        for t in range(T):
            for y, z, i in zip(expected, size, (tokens[t], place[t]), strict=True):
                y[:, i] += dx[:, t]
                z[:, i] += abs(dx[:, t])
        model.embed_backward(dx, tokens, ends, dwte, dwpe)
        check(dwte, expected[0], size[0], T + 1, "dwte")
        check(dwpe, expected[1], size[1], T + 1, "dwpe")


@given(st.sampled_from(DTYPES), sizes(4), sizes(9), st.integers(0, 99))
@pytest.mark.equation("model-loss-batch")
def test_position_weights(dtype, count, batch, seed):
    ends = documents(np.random.default_rng(seed), count)
    weights = np.full(ends[-1], 9, dtype)
    model.position_weights(ends, batch, weights)
    lengths = np.diff(ends, prepend=0)
    exact = 1 / (np.repeat(lengths, lengths) * LONG(batch))
    check(weights, exact, exact, 2)


@given(draws(), FEW, FEW, st.floats(0.1, 1e4))
@pytest.mark.equation("model-loss", "model-loss-backward")
def test_cross_entropy(x, V, T, spread):
    """Logits of 1e30 are no harm: only differences from the largest one matter.

    Such a difference has an error of u times its size, e^x adds (2 |x| + 6) u, the sum
    V u and the logarithm 4 u; T of them are weighted and added up.
    """
    logits = x(V, T) * x.dtype.type(spread if x.kind == "normal" else 1)
    targets, weights = x.rng.integers(0, V, T), x.positive(T)
    dlogits, kind = x.garbage(V, T), np.finfo(x.dtype)
    with np.errstate(all="ignore"):
        loss = LONG(model.cross_entropy(logits, targets, weights, dlogits))
        z, w = long(logits, weights)
        z = z - z.max(axis=0)
        e = np.exp(z)
        p, own = e / e.sum(axis=0), z[targets, np.arange(T)]
        exact = (w * (np.log(e.sum(axis=0)) - own)).sum()
    if not np.isfinite(exact):
        assert not np.isfinite(loss) or x.kind == "mixed"
        return
    size = (w * (abs(own) + np.log(V) + 1)).sum()
    near = np.minimum(abs(z), 12000.0)
    assert abs(loss - exact) <= (4 * T + V + 12) * LONG(kind.eps) * size * (1 + 2)
    exact, one = w * p, np.zeros((V, T))
    one[targets, np.arange(T)] = 1
    error = (2 * near + V + 12) * LONG(kind.eps) * (w * p + w * one)
    assert (abs(dlogits - (exact - w * one)) <= error + 2 * kind.smallest_normal).all()


@given(draws(), FEW, FEW)
@pytest.mark.equation("model-loss-shifted")
def test_parts_of_the_loss(x, V, T):
    logits, weights, targets = x(V, T), x.plain(T), x.rng.integers(0, V, T)
    with np.errstate(all="ignore"):
        found = np.asarray(model.target_sum(logits, targets, weights)).astype(x.dtype)
        terms = long(weights)[0] * long(logits)[0][targets, np.arange(T)]
        check(found, terms.sum(), abs(terms).sum(), 2 * T)
    e = x.positive(V, T)
    le, lw = long(e, weights)
    total = le.sum(axis=0)
    found = np.asarray(model.subtract_targets(e, targets, weights)).astype(x.dtype)
    terms = lw * np.log(total)
    check(found, terms.sum(), (abs(lw) * (abs(np.log(total)) + V)).sum(), 2 * T + V)
    exact = lw * le / total
    size = abs(exact)
    exact[targets, np.arange(T)] -= lw
    size[targets, np.arange(T)] += abs(lw)
    check(e, exact, size, V + 6)


def tiny(dtype="float64", start="seed", tile=2, n_layer=2):
    """A model whose streams, heads and layers all differ."""
    config = microgpt.GPTConfig(5, 4, 2, n_layer, 6, tile, start)
    gpt, rng = microgpt.GPT(config, None, dtype), np.random.default_rng(3)
    gpt.weights[:] = rng.normal(0, 0.5, gpt.weights.size)
    return gpt


@pytest.mark.parametrize("tile", [2, 16])
@pytest.mark.equation("model-forward", "model-backward")
def test_a_model_and_its_gradients(tile):
    """Against an independent model and its complex steps; set, not added to."""
    gpt, tokens = tiny(tile=tile, n_layer=3), TOKENS[:6]
    expected = reference.logits(gpt.params, 2, 3, tokens)
    np.testing.assert_allclose(gpt.logits(tokens).T, expected, rtol=1e-11)
    loss = reference.loss(gpt.params, 2, 3, tokens)
    gradients = reference.complex_step_gradients(gpt.params, 2, 3, tokens)
    top = 1e-11 * max(abs(g).max() for g in gradients.values())
    for _ in range(2):
        assert gpt.loss(tokens) == pytest.approx(loss, rel=1e-12)
        found, grads = gpt.loss_and_grads(tokens)
        assert found == pytest.approx(loss, rel=1e-12)
        for name, g in gradients.items():
            np.testing.assert_allclose(
                grads[name], g, rtol=1e-9, atol=top, err_msg=name
            )


@pytest.mark.parametrize("split", [1, 3])
def test_a_model_goes_on_where_it_stopped(split):
    gpt, tokens = tiny(), TOKENS[:6]
    whole = gpt.logits(tokens)
    first = gpt.logits(tokens[:split])
    same_numbers(np.hstack([first, gpt.logits(tokens[split:], split)]), whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bad_weight_is_seen(dtype):
    """nan in a weight that the loss depends on: no loss, and no gradient of it."""
    gpt, tokens = tiny(dtype), [0, 1, 2, 3, 4, 0]
    begin = gpt.weights.copy()
    for name, x in gpt.params.items():
        gpt.weights[:] = begin
        x.flat[0] = np.nan
        with np.errstate(all="ignore"):
            loss, grads = gpt.loss_and_grads(tokens)
        assert math.isnan(loss), name
        assert np.isnan(grads["lm_head"]).any() and np.isnan(grads["wte"]).any(), name


@given(st.sampled_from(DTYPES), sizes(9), st.integers(1, 300), st.integers(0, 99))
@pytest.mark.equation("training-adam")
def test_adam(dtype, n, step, seed):
    """Gradients of any size whose square is a number of the type."""
    x = Draw(dtype, "normal", seed)
    top = 1e18 if dtype == "float32" else 1e153
    g = x(n) * x.rng.choice([0.0, 1e-30, 1e-3, 1.0, top], n).astype(dtype)
    w, m, v = x(n), x(n), x.positive(n)
    lr, b1, b2, eps = x.rng.uniform(1e-4, 0.1), 0.85, 0.99, 1e-8
    number = x.dtype.type
    lw, lm, lv, lg = long(w, m, v, g)
    b1l, c1, b2l, c2 = (LONG(number(y)) for y in (b1, 1 - b1, b2, 1 - b2))
    new_m, new_v = b1l * lm + c1 * lg, b2l * lv + c2 * lg * lg
    size = abs(b1l * lm) + abs(c1 * lg)
    rate, unbias = LONG(number(lr / (1 - b1**step))), LONG(number(1 / (1 - b2**step)))
    change = rate / (np.sqrt(new_v * unbias) + LONG(number(eps)))
    with np.errstate(all="ignore"):
        training.adam(w, g, m, v, step, lr, b1, b2, eps)
    check(m, new_m, size, 4, "m")
    check(v, new_v, new_v, 5, "v")
    check(w, lw - change * new_m, abs(lw) + change * size, 20, "weights")
    assert np.isfinite(w).all()


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_adam_hides_no_nan(bad):
    arrays = [np.ones(3) for _ in range(4)]
    arrays[bad][1] = np.nan
    training.adam(*arrays, 1, 0.01, 0.85, 0.99, 1e-8)
    assert np.isnan(arrays[0]).tolist() == [False, True, False]


@given(draws(), sizes(30))
def test_vectors_are_added(x, n):
    a, b = x(n), x(n)
    with np.errstate(all="ignore"):
        expected = a + b
        training.add_to(b, a)
    same_numbers(a, expected)


@given(st.floats(0, 1), st.integers(1, 10**6), st.data())
@pytest.mark.equation("training-schedule")
def test_the_rate_falls_on_a_line(lr, steps, data):
    step = data.draw(st.integers(0, steps - 1))
    found = training.linear_schedule(lr, step, steps)
    exact = LONG(lr) * (steps - step) / steps
    kind = np.finfo(float)
    assert abs(found - exact) <= 3 * kind.eps * lr + kind.smallest_subnormal
    assert found > 0 or lr < 1e-300


def small_corpus(count=23):
    rng = random.Random(2)
    docs = ["".join(rng.choices("abcd", k=rng.randint(1, 7))) for _ in range(count)]
    return microgpt.data.Corpus(list("abcd"), docs, rng)


@pytest.mark.parametrize("batch_size", [8, 11])
@pytest.mark.equation("training-batch")
def test_training_is_adam_on_the_mean_of_the_documents(batch_size):
    """Three steps, each of one group of documents, or of a whole and a part of one."""
    gpt, plain, corpus, steps = tiny(n_layer=1), tiny(n_layer=1), small_corpus(), 3
    losses = microgpt.train(gpt, corpus, steps, batch_size=batch_size)
    m, v = np.zeros_like(plain.weights), np.zeros_like(plain.weights)
    for step in range(steps):
        numbers = range(step * batch_size, (step + 1) * batch_size)
        docs = [corpus.docs[i % len(corpus.docs)] for i in numbers]
        found = []
        for doc in docs:
            loss, _ = plain.loss_and_grads(corpus.encode(doc)[: 6 + 1])
            found.append((loss, plain.gradient.copy()))
        g = np.mean([g for _, g in found], axis=0)
        loss = np.mean([loss for loss, _ in found])
        assert losses[step] == pytest.approx(loss, rel=1e-12)
        m, v = 0.85 * m + 0.15 * g, 0.99 * v + 0.01 * g * g
        mean, root = m / (1 - 0.85 ** (step + 1)), np.sqrt(v / (1 - 0.99 ** (step + 1)))
        plain.weights -= 0.01 * (1 - step / steps) * mean / (root + 1e-8)
    np.testing.assert_allclose(gpt.weights, plain.weights, rtol=1e-8, atol=1e-10)


@pytest.mark.skipif(not numba.config.DISABLE_JIT, reason="waits in Python")
def test_threads_in_python_change_no_bit(monkeypatch):
    """As test_threads_change_no_bit_of_training, with a barrier of Python's own."""
    results, corpus = [], small_corpus(40)
    for threads in (1, 2, 3):
        waits, barrier = [], threading.Barrier(threads, timeout=60)

        def wait(arrived, count, waits=waits, barrier=barrier):
            waits.append(count)
            barrier.wait()

        monkeypatch.setattr(training, "wait_for_all", wait)
        gpt, losses = tiny(n_layer=1), np.zeros(2)
        recipe = training.Recipe(2, 0.01, 0.85, 0.99, 1e-8, 18, threads)
        state = training.training_state(gpt, 18, threads)
        packed = training.pack_documents(corpus, 0, recipe, 2, 6)
        training.run_steps(state, recipe, 0, packed, losses)
        results.append((losses.tobytes(), gpt.weights.tobytes()))
        assert waits == [threads] * (2 * 2 * threads)  # twice in each of two steps
    assert results[0] == results[1] == results[2]


def test_every_thread_updates_its_share():
    """Low and high are shares of the weights; the rows of gradients are summed."""
    rng = np.random.default_rng(5)
    recipe = training.Recipe(9, 0.01, 0.85, 0.99, 1e-8, 20, 3)
    whole = [rng.normal(size=11), rng.normal(size=(3, 11)), *np.zeros((2, 11))]
    shares = [x.copy() for x in whole]
    own = [x.copy() for x in whole]
    own[1][0] = whole[1].sum(axis=0)
    training.adam(own[0], own[1][0], own[2], own[3], 5, 0.01 * 5 / 9, 0.85, 0.99, 1e-8)
    for low, high in ((0, 3), (3, 7), (7, 11)):
        training.update_weights(*shares, low, high, 4, recipe)
    np.testing.assert_allclose(shares[0], own[0], rtol=1e-14)


def lanes(x, n_keys, n_head, d):
    B, C = 5, n_head * d
    return x(B, C), x(B, C, 6), x(B, C, 6), np.asfortranarray(x.positive(B, 6, n_head))


@given(draws(("normal", "zeros", "subnormal")), sizes(6), FEW, sizes(3))
@pytest.mark.equation("sampling-lanes")
def test_attention_of_lanes(x, n_keys, n_head, d):
    q, k, v, p = lanes(x, n_keys, n_head, d)
    B, C = q.shape
    scores, o, inverse = x.garbage(B, 6, n_head), x.garbage(B, C), x.positive(B, n_head)
    lq, lk, lv, lp, li = long(q, k, v, p, inverse)
    with np.errstate(all="ignore"):
        sampling.score_lanes(q, k, n_keys, scores)
        products = (lq[:, :, None] * lk).reshape(B, n_head, d, 6) / np.sqrt(LONG(d))
        exact, size = products.sum(axis=2), abs(products).sum(axis=2)
        for h in range(n_head):
            found = scores[:, :n_keys, h]
            check(found, exact[:, h, :n_keys], size[:, h, :n_keys], 2 * d + 4, "scores")
        same_numbers(scores[:, n_keys:], x.garbage(B, 6 - n_keys, n_head))
        sampling.combine_lanes(p, v, n_keys, inverse, o)
        wide = np.repeat(lp, d, axis=2).transpose(0, 2, 1)[:, :, :n_keys]
        terms = wide * lv[:, :, :n_keys] * np.repeat(li, d, axis=1)[:, :, None]
        check(o, terms.sum(axis=2), abs(terms).sum(axis=2), 2 * n_keys + 4, "output")


@given(draws(), FEW, FEW, FEW)
def test_embedding_of_lanes(x, C, V, B):
    tokens, wte, wpe, out = x.rng.integers(0, V, B), x(C, V), x(C, 3), x.garbage(C, B)
    with np.errstate(all="ignore"):
        sampling.embed_lanes(tokens, 2, wte, wpe, out)
        same_numbers(out, wte[:, tokens] + wpe[:, 2:])


@given(draws(), FEW, FEW)
def test_all_finite(x, m, n):
    a = x(m, n)
    with np.errstate(all="ignore"):
        assert bool(sampling.all_finite(a)) == np.isfinite(a).all()
        a[m - 1, n - 1] = -np.inf
        assert not sampling.all_finite(a)


@given(draws(("normal", "mixed", "huge", "zeros")), FEW, FEW, st.floats(1e-3, 1e3))
@pytest.mark.equation("sampling-temperature")
def test_logits_over_the_temperature(x, V, B, temperature):
    logits, weights = x(V, B), np.full((V, B), 9.0, order="F")
    with np.errstate(all="ignore"):
        sampling.over_temperature(logits, temperature, weights)
        z = long(logits)[0]
        exact = (z - z.max(axis=0)) / LONG(temperature)
        check(weights, exact, abs(exact), 3)


@given(st.integers(0, 999), FEW, sizes(9), st.data())
@pytest.mark.equation("sampling-draw")
def test_draws_of_lanes(seed, V, B, data):
    """The first token whose running sum is above the dart; the last one if none is."""
    rng = np.random.default_rng(seed)
    weights = np.asfortranarray(rng.integers(0, 4, (V, B + 1)).astype(float))
    weights[rng.integers(V, size=B + 1), np.arange(B + 1)] += 1
    darts = rng.integers(0, 8, B + 1) / 8  # exact, so that darts hit the borders, too
    tokens, sums = np.full(B + 1, 99), np.cumsum(weights, axis=0)
    sampling.draw_lanes(weights, darts, tokens)
    same_numbers(weights, sums)
    for b, token in enumerate(tokens):
        above = np.flatnonzero(sums[:, b] > darts[b] * sums[-1, b])
        assert token == above[0]
    nothing, first = np.zeros((V, 2), order="F"), np.zeros(2, tokens.dtype)
    sampling.draw_lanes(nothing, darts[:2], first)
    assert (first == V - 1).all()  # never beyond the vocabulary


def test_lanes_end_with_bos():
    bos, ids = 3, np.full((4, 3), 3, order="F")
    tokens = np.array([0, 3, 1, 2])
    assert not sampling.end_of_lanes(tokens, 0, bos, ids)
    assert ids[:, 0].tolist() == [0, 3, 1, 2]
    assert not sampling.end_of_lanes(np.array([1, 1, 3, 3]), 1, bos, ids)
    assert ids[:, 1].tolist() == [1, 3, 3, 3]  # what has ended stays ended
    assert sampling.end_of_lanes(np.array([3, 0, 1, 0]), 2, bos, ids)
    assert ids[:, 2].tolist() == [3, 3, 3, 3]
    assert not sampling.end_of_lanes(np.array([0, 3, 3, 3]), 0, bos, ids)
    assert sampling.end_of_lanes(np.array([3, 3, 3, 3]), 0, bos, ids)


@pytest.mark.parametrize("prompt", ["", "ca"])
@pytest.mark.equation("sampling-lanes", "sampling-stop")
def test_lanes_speak_as_one_model_does(prompt, monkeypatch):
    """Every document of a batch is the one that `sample` draws with its numbers."""
    monkeypatch.setattr(sampling, "LANES", 16)
    gpt, corpus, rng = tiny(n_layer=3), small_corpus(), random.Random(1)
    size = 6 - len(prompt)
    rows = [[rng.random() for _ in range(size)] for _ in range(19)]
    found = microgpt.sample_many(gpt, corpus, random.Random(1), 19, 0.8, prompt)
    expected = [
        microgpt.sample(gpt, corpus, reference.replay(row), 0.8, prompt) for row in rows
    ]
    assert found == expected
    assert len({len(text) for text in found}) > 1  # some have ended early


def test_lanes_forget_what_they_held(monkeypatch):
    """Maxima and sums of earlier positions and documents do not reach the next one."""
    monkeypatch.setattr(sampling, "LANES", 8)
    gpt, results = tiny(), []
    for old in (0.0, 1e4, np.inf):
        c = model.allocate(sampling.lane_shapes(gpt.config), gpt.dtype)
        c.z[:] = np.random.default_rng(1).normal(size=c.z.shape)
        for x in (c.m, c.l, c.correction, c.p, c.o_t, c.q_t, c.y):
            x.fill(old)
        sampling.attend_lanes(gpt.parameters, c, 1, 2)
        results.append(c.y.tobytes())
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("dtype", DTYPES)
def test_lanes_refuse_what_is_no_number(dtype, monkeypatch):
    monkeypatch.setattr(sampling, "LANES", 8)
    gpt = tiny(dtype)
    gpt.params["lm_head"][2, 1] = np.nan
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="not finite"):
        microgpt.sample_many(gpt, small_corpus(), random.Random(1), 3)
