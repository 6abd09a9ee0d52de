"""Gradients, the plain residual network, and the numbers the book promises."""

import copy
import random

import numpy as np
import pytest
import reference

import microgpt

TOKENS = [10, 3, 0, 7, 7, 1, 9, 2]  # T = 7 inputs of a vocabulary of 11


def worst_relative_error(grads, expected):
    """Largest error of any parameter, relative to the largest entry of its array.

    Some gradients vanish by symmetry or, like that of an alpha whose scale RMSNorm
    cancels, nearly so; these are held to a ten-thousandth of the largest of all.
    """
    floor = 1e-4 * max(np.abs(g).max() for g in expected.values())
    return max(
        np.abs(grads[name] - g).max() / max(np.abs(g).max(), floor)
        for name, g in expected.items()
    )


def central_differences(model, tokens, h=1e-4):
    """Fourth-order central differences: a small error in gradients near zero too."""
    gradients = {}
    for name, x in model.params.items():
        gradients[name] = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            keep, total = x[index], 0.0
            for steps, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
                x[index] = keep + steps * h
                total += weight * model.loss(tokens)
            gradients[name][index] = total / (12 * h)
            x[index] = keep
    return gradients


@pytest.mark.equation("model-backward")
def test_every_gradient_by_central_differences_at_odd_sizes(odd_model):
    _, grads = odd_model.loss_and_grads(TOKENS)
    assert worst_relative_error(grads, central_differences(odd_model, TOKENS)) < 1e-6


def test_every_gradient_by_central_differences_at_seed_sizes(corpus):
    config = microgpt.GPTConfig(corpus.size, start="asymmetric")
    model = microgpt.GPT(config, corpus.rng)
    tokens = corpus.encode(corpus.docs[1])  # no ReLU input within reach of its kink
    _, grads = model.loss_and_grads(tokens)
    assert worst_relative_error(grads, central_differences(model, tokens)) < 1e-6


@pytest.mark.equation("model-backward", "model-loss")
def test_every_gradient_by_complex_steps_through_an_independent_model(odd_model):
    loss, grads = odd_model.loss_and_grads(TOKENS)
    assert loss == pytest.approx(reference.loss(odd_model.params, 3, 2, TOKENS))
    expected = reference.complex_step_gradients(odd_model.params, 3, 2, TOKENS)
    assert worst_relative_error(grads, expected) < 1e-11


@pytest.mark.equation("model-forward")
def test_logits_equal_the_independent_model(odd_model):
    expected = reference.logits(odd_model.params, 3, 2, TOKENS)
    np.testing.assert_allclose(odd_model.logits(TOKENS).T, expected, rtol=1e-12)


@pytest.mark.parametrize("split", [1, 3, 5, 7])
def test_continuing_from_cached_positions_changes_no_bit(odd_model, split):
    whole = odd_model.logits(TOKENS)
    first = odd_model.logits(TOKENS[:split])
    second = odd_model.logits(TOKENS[split:], start=split)
    np.testing.assert_array_equal(np.hstack([first, second]), whole)


def test_gradients_have_the_names_and_shapes_of_the_parameters(odd_model):
    _, grads = odd_model.loss_and_grads(TOKENS)
    shapes = {name: x.shape for name, x in odd_model.params.items()}
    assert {name: g.shape for name, g in grads.items()} == shapes
    assert sum(x.size for x in odd_model.params.values()) == odd_model.weights.size
    for x in odd_model.params.values():
        assert x.flags.f_contiguous and x.flags.writeable
        assert np.shares_memory(x, odd_model.weights)


def test_two_models_do_not_disturb_each_other(odd_model, corpus):
    before = odd_model.logits(TOKENS)
    other = microgpt.GPT(microgpt.GPTConfig(11, 12, 3, 2, 9, 2), random.Random(1))
    other.loss_and_grads(TOKENS)
    np.testing.assert_array_equal(odd_model.logits(TOKENS), before)


def plain_residual_loss(model, tokens):
    """The network without streams: x + F(norm(x)), from the same weights."""
    p = model.params
    x = p["wte"].T[tokens[:-1]] + p["wpe"].T[: len(tokens) - 1]

    def norm(h):
        return h / np.sqrt((h * h).mean(axis=1, keepdims=True) + 1e-5)

    q, k, v = (norm(x) @ p[f"0.{w}"].T for w in ("wq", "wk", "wv"))
    x = x + reference.attention(q, k, v, 4) @ p["0.wo"].T
    x = x + np.maximum(norm(x) @ p["0.fc1"].T, 0) @ p["0.fc2"].T
    z = x @ p["lm_head"].T
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(tokens) - 1), tokens[1:]].mean()


@pytest.mark.parametrize("start", ["seed", "asymmetric"])
@pytest.mark.equation("model-residual")
def test_both_starts_begin_as_the_plain_residual_network(corpus, start):
    model = microgpt.GPT(microgpt.GPTConfig(corpus.size, start=start), corpus.rng)
    tokens = corpus.encode(corpus.docs[0])
    loss = model.loss(tokens)
    assert loss == pytest.approx(3.31928, abs=1e-5)
    assert loss == pytest.approx(plain_residual_loss(model, tokens), rel=1e-12)


FINAL = {
    "0.attn.alpha": 0.04545,
    "0.attn.beta": 0.41668,
    "0.mlp.alpha": 0.35948,
    "0.mlp.beta": 0.63336,
    "contract": 0.35762,
}


@pytest.mark.parametrize(
    ("dtype", "first", "means", "scalars"),
    [("float64", 1e-5, 1e-3, 1e-4), ("float32", 1e-5, 1e-3, 1e-3)],
)
def test_the_promised_run(corpus, dtype, first, means, scalars):
    assert (len(corpus.docs), len(corpus.chars), corpus.size) == (32257, 26, 27)
    model = microgpt.GPT(microgpt.GPTConfig(corpus.size), corpus.rng, dtype)
    assert model.weights.size == 4192 + 12
    losses = microgpt.train(model, corpus)
    assert len(losses) == 1000
    assert losses[0] == pytest.approx(3.31928, abs=first)
    assert losses[:100].mean() == pytest.approx(2.736, abs=means)
    assert losses[-100:].mean() == pytest.approx(2.433, abs=means)
    for name, value in FINAL.items():
        np.testing.assert_allclose(model.params[name], value, atol=scalars)
        assert model.params[name][0] == model.params[name][1], name


@pytest.mark.parametrize("tile", [1, 4, 5, 64])
def test_the_tile_changes_nothing_but_rounding(corpus, tile):
    losses = []
    for size in (16, tile):
        rng = copy.copy(corpus.rng)
        model = microgpt.GPT(microgpt.GPTConfig(corpus.size, tile=size), rng)
        losses.append(microgpt.train(model, corpus, 100))
    np.testing.assert_allclose(*losses, rtol=1e-8)


@pytest.mark.equation("hyper-theta-gradient")
def test_theta_never_receives_a_gradient_from_the_seed_start(corpus):
    model = microgpt.GPT(microgpt.GPTConfig(corpus.size), corpus.rng)
    for doc in corpus.docs[:30]:
        _, grads = model.loss_and_grads(corpus.encode(doc)[: 16 + 1])
        for part in ("attn", "mlp"):
            assert grads[f"0.{part}.theta"][0] == 0.0
        for name, g in grads.items():
            model.params[name][...] -= 0.1 * g
    microgpt.train(model, corpus, 200)
    assert model.params["0.attn.theta"][0] == model.params["0.mlp.theta"][0] == 0.0


def test_theta_learns_from_the_asymmetric_start(corpus):
    config = microgpt.GPTConfig(corpus.size, start="asymmetric")
    model = microgpt.GPT(config, corpus.rng)
    losses = microgpt.train(model, corpus)
    assert losses[0] == pytest.approx(3.31928, abs=1e-5)
    assert model.params["0.mlp.theta"][0] == pytest.approx(2.45, abs=0.01)


@pytest.mark.equation("training-adam", "training-correction", "training-schedule")
def test_a_plain_python_loop_gives_the_same_losses(corpus):
    model = microgpt.GPT(microgpt.GPTConfig(corpus.size), corpus.rng)
    begin = model.weights.copy()
    compiled = microgpt.train(model, corpus, 25)
    model.weights[:] = begin
    m = {name: np.zeros(x.shape) for name, x in model.params.items()}
    v = {name: np.zeros(x.shape) for name, x in model.params.items()}
    for step in range(25):
        tokens = corpus.encode(corpus.docs[step])[: 16 + 1]
        loss, grads = model.loss_and_grads(tokens)
        assert loss == pytest.approx(compiled[step], abs=1e-12)
        for name, g in grads.items():
            m[name] = 0.85 * m[name] + 0.15 * g
            v[name] = 0.99 * v[name] + 0.01 * g**2
            m_hat = m[name] / (1 - 0.85 ** (step + 1))
            v_hat = v[name] / (1 - 0.99 ** (step + 1))
            rate = 0.01 * (1 - step / 25)
            model.params[name][...] -= rate * m_hat / (np.sqrt(v_hat) + 1e-8)


def test_weights_are_drawn_row_by_row_in_the_documented_order():
    model = microgpt.GPT(microgpt.GPTConfig(5, 6, 2, 1, 3), random.Random(3))
    rng = random.Random(3)
    p = model.params
    for columns in (p["wte"], p["wpe"]):
        for j in range(columns.shape[1]):
            assert columns[:, j].tolist() == [rng.gauss(0, 0.08) for _ in range(6)]
    for name in ("lm_head", "0.wq", "0.wk", "0.wv", "0.wo", "0.fc1", "0.fc2"):
        for row in p[name]:
            assert row.tolist() == [rng.gauss(0, 0.08) for _ in row], name


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_embd": 8, "n_head": 1},
        {"n_embd": 4, "n_head": 4},
        {"n_embd": 2, "n_head": 1, "block_size": 1, "tile": 7},
        {"n_layer": 3, "n_embd": 6, "n_head": 2, "tile": 5},
    ],
)
def test_other_sizes_work(sizes):
    config = microgpt.GPTConfig(vocab_size=5, **sizes)
    model = microgpt.GPT(config, random.Random(5))
    tokens = [4, 1, 0, 3, 4][: config.block_size + 1]
    loss, _ = model.loss_and_grads(tokens)
    expected = reference.loss(model.params, config.n_head, config.n_layer, tokens)
    assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "tokens", [[], [1], [1, 27], [-1, 2], list(range(18)), [[1, 2]], [0.5, 1.0]]
)
def test_bad_tokens_are_refused(corpus, tokens):
    model = microgpt.GPT(microgpt.GPTConfig(corpus.size), corpus.rng)
    with pytest.raises((TypeError, ValueError), match="tokens"):
        model.loss(tokens)


@pytest.mark.parametrize("start", [True, 1.0, -1, None])
def test_a_start_is_a_whole_number(odd_model, start):
    odd_model.logits(TOKENS[:3])
    with pytest.raises(ValueError, match="start is"):
        odd_model.logits(TOKENS[3:4], start)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"n_embd": 10}, "n_head"),
        ({"n_layer": 0}, "n_layer"),
        ({"block_size": 2.5}, "block_size"),
        ({"start": "other"}, "start"),
        ({"tile": -1}, "tile"),
    ],
)
def test_bad_configurations_are_refused(arguments, word):
    with pytest.raises((TypeError, ValueError), match=word):
        microgpt.GPTConfig(27, **arguments)


def test_bad_dtype_is_refused():
    with pytest.raises((TypeError, ValueError), match="dtype"):
        microgpt.GPT(microgpt.GPTConfig(27), random.Random(0), "float16")


def test_saved_model_comes_back(odd_model, tmp_path):
    path = tmp_path / "model.safetensors"
    vocabulary = microgpt.Vocabulary(list("abcdefghij"))
    microgpt.save_model(path, odd_model, vocabulary)
    model, loaded = microgpt.load_model(path)
    assert loaded.chars == vocabulary.chars and model.config == odd_model.config
    for name, x in model.params.items():
        np.testing.assert_array_equal(x, odd_model.params[name], err_msg=name)
        assert x.flags.f_contiguous or x.ndim == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_damaged_model_files_are_refused(odd_model, tmp_path):
    path = tmp_path / "model.safetensors"
    microgpt.save_model(path, odd_model, microgpt.Vocabulary(list("abcdefghij")))
    data = path.read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        path.write_bytes(data[: rng.randrange(len(data))])
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            microgpt.load_model(path)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            microgpt.load_model(path)
    with pytest.raises(OSError):
        microgpt.load_model(tmp_path / "nothing")
