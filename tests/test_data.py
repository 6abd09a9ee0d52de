"""Corpus, vocabulary, shuffle and sampling."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import microgpt
from microgpt.data import read_documents
from microgpt.sampling import next_token_weights


def test_the_corpus_of_the_book(corpus, root):
    lines = [line.strip() for line in (root / "input.txt").read_text().splitlines()]
    expected = [line for line in lines if line]
    rng = random.Random(42)
    rng.shuffle(expected)
    assert corpus.docs == expected and len(expected) == 32257
    assert corpus.chars == list("abcdefghijklmnopqrstuvwxyz") and corpus.bos == 26
    assert corpus.rng.getstate() == rng.getstate()


@pytest.mark.equation("data-tokens")
def test_every_document_survives_encoding(corpus):
    for doc in corpus.docs:
        tokens = corpus.encode(doc)
        assert tokens[0] == tokens[-1] == corpus.bos and corpus.bos not in tokens[1:-1]
        assert corpus.decode(tokens) == doc


@given(st.lists(st.characters(), min_size=1, unique=True), st.data())
def test_any_text_over_the_vocabulary_survives(chars, data):
    vocabulary = microgpt.Vocabulary(sorted(chars))
    doc = "".join(data.draw(st.lists(st.sampled_from(chars))))
    assert vocabulary.decode(vocabulary.encode(doc)) == doc


def test_unknown_characters_and_ids_are_refused(corpus):
    with pytest.raises(ValueError, match="'é'"):
        corpus.encode("andré")
    for bad in ([27], [-1]):
        with pytest.raises(ValueError, match="token id"):
            corpus.decode(bad)


def test_lines_are_stripped_and_blank_ones_skipped(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeff one \r\n\r\n\ttwo words\n \nz\u0085y".encode())
    assert read_documents(path) == ["one", "two words", "z\u0085y"]


@pytest.mark.parametrize(
    ("data", "word"),
    [(b"", "empty"), (b"\n \n", "blank"), (b"a\nb\xffc\n", "line 2 .*UTF-8")],
)
def test_unusable_files_are_refused(tmp_path, data, word):
    path = tmp_path / "text"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"text.*{word}"):
        microgpt.load_corpus(path)


@pytest.fixture
def trained(corpus):
    model = microgpt.GPT(microgpt.GPTConfig(corpus.size), corpus.rng)
    microgpt.train(model, corpus, 300)
    return model


@pytest.mark.equation("sampling-columns")
def test_cached_and_recomputed_samples_are_the_same(trained, corpus):
    for seed in range(40):
        a, b = (
            microgpt.sample(
                trained, corpus, random.Random(seed), 1.0, "a", cached=cached
            )
            for cached in (True, False)
        )
        assert a == b and a.startswith("a") and len(a) <= 16


@pytest.mark.equation("sampling-temperature", "sampling-draw")
def test_samples_follow_the_probabilities(trained, corpus):
    """First letters of many samples against the model's own probabilities."""
    rng, count = random.Random(1), 3000
    p = next_token_weights(trained.logits([corpus.bos])[:, 0], 0.7)
    assert p.sum() == pytest.approx(1)
    found = np.zeros(corpus.size)
    for _ in range(count):
        name = microgpt.sample(trained, corpus, rng, 0.7)
        found[corpus.encode(name)[1] if name else corpus.bos] += 1
    expected = count * p
    some = expected > 5
    chi2 = ((found - expected)[some] ** 2 / expected[some]).sum()
    assert chi2 < some.sum() + 5 * np.sqrt(2 * some.sum())


def test_low_temperature_is_greedy(trained, corpus):
    names = {microgpt.sample(trained, corpus, random.Random(i), 1e-4) for i in range(9)}
    assert len(names) == 1


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_bad_temperatures_are_refused(trained, corpus, temperature):
    with pytest.raises(ValueError, match="temperature"):
        microgpt.sample(trained, corpus, corpus.rng, temperature)


@pytest.mark.parametrize("prompt", ["A", "a" * 17])
def test_bad_prompts_are_refused(trained, corpus, prompt):
    with pytest.raises(ValueError, match=r"prompt|character"):
        microgpt.sample(trained, corpus, corpus.rng, prompt=prompt)


@pytest.mark.parametrize("steps", [0, -5])
def test_bad_steps_are_refused(trained, corpus, steps):
    with pytest.raises(ValueError, match="steps"):
        microgpt.train(trained, corpus, steps)


def test_training_that_diverges_says_where(trained, corpus):
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="step"):
        microgpt.train(trained, corpus, 2000, lr=1e200)


@pytest.mark.equation("data-temper", "data-difference")
def test_tempering_is_linear_in_the_bits():
    """Python's own generator, set to a state of equal words, tempers what we like."""

    def temper(word):
        rng = random.Random()
        rng.setstate((3, (word,) * 624 + (0,), None))
        return rng.getrandbits(32)

    columns = [temper(1 << j) for j in range(32)]
    for word in (0, 1, 0x12345678, 0xFFFFFFFF):
        assert [temper(word ^ 1 << j) ^ temper(word) for j in range(32)] == columns
    y = word = 0x12345678  # and it is the four shifts of the chapter
    y ^= y >> 11
    y ^= y << 7 & 0x9D2C5680
    y ^= y << 15 & 0xEFC60000
    assert temper(word) == y ^ y >> 18


@pytest.mark.equation("sampling-entropy", "sampling-entropy-backward")
def test_entropy_grows_with_the_temperature_as_the_variance_says():
    z = np.random.default_rng(4).normal(0, 2, 13)

    def entropy(temperature):
        p = next_token_weights(z, temperature)
        return -(p * np.log(p)).sum()

    for temperature in (0.4, 1.0, 2.5):
        p, h = next_token_weights(z, temperature), 1e-5
        variance = p @ z**2 - (p @ z) ** 2
        slope = (entropy(temperature + h) - entropy(temperature - h)) / (2 * h)
        assert slope == pytest.approx(variance / temperature**3, rel=1e-6)
    assert entropy(1e6) == pytest.approx(np.log(13), rel=1e-6)
