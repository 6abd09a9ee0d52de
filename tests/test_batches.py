"""Many documents at once: batches and threads in training, lanes in sampling."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from reference import replay

import microgpt
from microgpt import sampling, training
from microgpt.sampling import LANES, sample_many

NAMES = Path(__file__).parent.parent / "input.txt"
ODD = {"n_embd": 12, "n_head": 3, "n_layer": 2, "block_size": 5, "tile": 2}


def odd_run(dtype="float64"):
    """A model of odd sizes, whose block_size cuts most names, and its corpus."""
    corpus = microgpt.load_corpus(NAMES)
    config = microgpt.GPTConfig(corpus.size, **ODD, start="asymmetric")
    return microgpt.GPT(config, corpus.rng, dtype), corpus


def plain_adam(model, corpus, steps, batch_size, lr=0.01, b1=0.85, b2=0.99):
    """Training written down once more: the mean of the documents' own gradients."""
    m, v = ({name: 0.0 for name in model.params} for _ in range(2))
    losses = []
    for step in range(steps):
        docs = corpus.docs[step * batch_size : (step + 1) * batch_size]
        tokens = [corpus.encode(doc)[: model.config.block_size + 1] for doc in docs]
        found = [model.loss_and_grads(ids) for ids in tokens]
        losses.append(np.mean([loss for loss, _ in found]))
        for name, x in model.params.items():
            g = np.mean([grads[name] for _, grads in found], axis=0)
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g * g
            mean = m[name] / (1 - b1 ** (step + 1))
            root = np.sqrt(v[name] / (1 - b2 ** (step + 1)))
            x -= lr * (1 - step / steps) * mean / (root + 1e-8)
    return losses


@pytest.mark.parametrize("batch_size", [1, 3, 8, 19])
def test_a_batch_is_the_mean_of_its_documents(batch_size):
    plain, corpus = odd_run()
    expected = plain_adam(plain, corpus, 4, batch_size)
    model, corpus = odd_run()
    losses = microgpt.train(model, corpus, 4, batch_size=batch_size)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    for name, x in model.params.items():
        np.testing.assert_allclose(
            x, plain.params[name], rtol=1e-7, atol=1e-9, err_msg=name
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_no_bit_of_training(dtype):
    """Three groups of documents, also with more threads than processors."""
    results = []
    for threads in (1, 2, 3):
        model, corpus = odd_run(dtype)
        recipe = training.Recipe(6, 0.01, 0.85, 0.99, 1e-8, 20, threads)
        state = training.training_state(model, 20, threads)
        documents = training.pack_documents(corpus, 0, recipe, 6, ODD["block_size"])
        losses = np.zeros(6)
        training.run_steps(state, recipe, 0, documents, losses)
        results.append((losses.tobytes(), model.weights.tobytes()))
    assert results[0] == results[1] == results[2]
    model, corpus = odd_run(dtype)
    losses = microgpt.train(model, corpus, 6, batch_size=20, threads=2)
    assert (losses.tobytes(), model.weights.tobytes()) == results[0]


def test_chunks_change_no_bit(monkeypatch):
    results = []
    for chunk in (100, 3):
        monkeypatch.setattr(training, "CHUNK", chunk)
        model, corpus = odd_run()
        losses = microgpt.train(model, corpus, 50, batch_size=3)
        results.append((losses.tobytes(), model.weights.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["steps", "batch_size", "threads"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3"])
def test_bad_counts_are_refused(name, value):
    model, corpus = odd_run()
    before = model.weights.copy()
    with pytest.raises(ValueError, match=name):
        microgpt.train(model, corpus, **{name: value})
    assert np.array_equal(model.weights, before)


@pytest.mark.parametrize("name", ["lr", "beta1", "beta2", "eps"])
@pytest.mark.parametrize("value", [-1, np.nan, np.inf, True, "0.01", None, [0.1], 1j])
def test_bad_numbers_are_refused(name, value):
    model, corpus = odd_run()
    before = model.weights.copy()
    with pytest.raises(ValueError, match=f"^{name} is .*; expected "):
        microgpt.train(model, corpus, 2, **{name: value})
    assert np.array_equal(model.weights, before)


def test_documents_in_an_array_are_those_in_a_list():
    """Also where the run goes round; NumPy's own += would join their letters."""
    found = []
    for kind in (list, tuple, np.array):
        model, corpus = odd_run()
        part = dataclasses.replace(corpus, docs=kind(corpus.docs[:3]))
        found.append(microgpt.train(model, part, 4, batch_size=3).tolist())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("prompt", ["", "k", "kar"])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_many_samples_are_those_of_one_by_one(prompt, temperature):
    model, corpus = odd_run()
    microgpt.train(model, corpus, 60)
    count, size = LANES + 3, ODD["block_size"] - len(prompt)
    rng = random.Random(5)
    rows = [[rng.random() for _ in range(size)] for _ in range(count)]
    found = sample_many(model, corpus, random.Random(5), count, temperature, prompt)
    expected = [
        microgpt.sample(model, corpus, replay(row), temperature, prompt) for row in rows
    ]
    assert found == expected
    assert any(len(text) == ODD["block_size"] for text in found)


def one_round(model, corpus, rng, temperature=0.5, prompt=""):
    return sample_many(model, corpus, rng, 2, temperature, prompt)


@pytest.mark.parametrize("draw", [microgpt.sample, one_round])
def test_a_vocabulary_larger_than_the_models_is_refused(draw):
    """Its BOS would be looked up behind the end of the embeddings."""
    model, corpus = odd_run()
    larger = microgpt.Vocabulary([*corpus.chars, "é"])
    with pytest.raises(ValueError, match=r"^corpus\.size is 28; expected at most 27"):
        draw(model, larger, random.Random(1))


def test_many_samples_refuse_what_one_refuses():
    model, corpus = odd_run()
    rng = random.Random(1)
    assert sample_many(model, corpus, rng, 0) == []
    for temperature in (0.0, -1.0, np.inf, np.nan, "0.5", None, [0.5]):
        for draw in (microgpt.sample, one_round):
            with pytest.raises(ValueError, match=r"^temperature is .*; expected "):
                draw(model, corpus, rng, temperature)
    for prompt in ("é", "abcdef"):
        with pytest.raises(ValueError, match=r"prompt|character"):
            sample_many(model, corpus, rng, 2, 0.5, prompt)
    for prompt in (None, 3, ["a"], b"a"):
        for draw in (microgpt.sample, one_round):
            with pytest.raises(TypeError, match=r"^prompt is .*; expected a string"):
                draw(model, corpus, rng, prompt=prompt)
    for count in (-1, 2.0, True):
        with pytest.raises(ValueError, match="count is"):
            sample_many(model, corpus, rng, count)
    model.params["wte"][:] = np.nan
    with pytest.raises(ValueError, match="finite"):
        sample_many(model, corpus, rng, 2)


@pytest.mark.parametrize("lanes", [12, 4, 0, 8.0])
def test_lanes_come_in_eights(lanes, monkeypatch):
    """`exponential_below` writes eight rows at a time."""
    monkeypatch.setattr(sampling, "LANES", lanes)
    with pytest.raises(ValueError, match="LANES is"):
        sample_many(*odd_run(), random.Random(1), 1)
