"""Corpus, vocabulary, shuffle and sampling."""

import collections
import dataclasses
import os
import random
from types import SimpleNamespace

import numpy as np
import psutil
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
    assert "".join(corpus.chars) == "abcdefghijklmnopqrstuvwxyz" and corpus.bos == 26
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
    with pytest.raises(ValueError, match=r"'é' \(position 4 "):
        corpus.encode("andré")
    with pytest.raises(ValueError, match=r"position 1000000 ") as refusal:
        corpus.encode("a" * 10**6 + "!")
    assert len(str(refusal.value)) < 200
    for bad in ([27], [-1], [True], [1.0], [26.0], ["a"], [None]):
        with pytest.raises(ValueError, match="token id"):
            corpus.decode(bad)
    assert corpus.decode(np.array([26, 0], np.uint8)) == "a"


@pytest.mark.parametrize("chars", ["ab", ["a", "b", "a"], ["ab"], [""], [1], None])
def test_a_vocabulary_is_a_list_of_distinct_characters(chars):
    with pytest.raises(ValueError, match="chars"):
        microgpt.Vocabulary(chars)


def test_a_vocabulary_cannot_change():
    chars = ["a", "b"]
    vocabulary = microgpt.Vocabulary(chars)
    chars.reverse()
    assert vocabulary.encode("ab") == [2, 0, 1, 2] and vocabulary.chars == ("a", "b")
    with pytest.raises(AttributeError):
        vocabulary.chars = ("b", "a")


def test_lines_are_stripped_and_blank_ones_skipped(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeff one \r\n\r\n\ttwo words\n \nz\u0085y".encode())
    assert read_documents(path) == ["one", "two words", "z\u0085y"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_text_is_read_as_its_stripped_lines(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(text.encode())
    lines = text.removeprefix("\ufeff").split("\n")
    expected = [line.strip() for line in lines if line.strip()]
    if not expected:
        with pytest.raises(ValueError, match="no documents"):
            microgpt.load_corpus(path)
        return
    corpus = microgpt.load_corpus(path)
    assert collections.Counter(corpus.docs) == collections.Counter(expected)
    assert corpus.chars == tuple(sorted(set("".join(expected))))
    assert all(corpus.decode(corpus.encode(doc)) == doc for doc in corpus.docs)


@given(st.lists(st.integers()), st.integers(min_value=0))
def test_a_shuffle_is_pythons_own(tmp_path_factory, numbers, seed):
    path = tmp_path_factory.getbasetemp() / "numbers"
    expected = [str(i) for i in numbers] or ["0"]
    path.write_text("\n".join(expected), encoding="utf-8")
    corpus, rng = microgpt.load_corpus(path, seed), random.Random(seed)
    rng.shuffle(expected)
    assert corpus.docs == expected and corpus.rng.random() == rng.random()


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # one picture, five code points


@pytest.mark.parametrize(
    ("text", "count", "longest"),
    [
        ("a", 1, 1),
        ("Zoë\nZoe\u0308\n", 2, 4),
        ("李明\r\n王芳\r\n" + FAMILY, 3, 5),
        ("é" * 10**6, 1, 10**6),
        ("ab\n" * 10**6, 10**6, 2),
    ],
    ids=["a character", "marks", "scripts", "a long line", "many lines"],
)
def test_unusual_files_train_and_speak(tmp_path, text, count, longest):
    path = tmp_path / "text"
    path.write_text(text, encoding="utf-8", newline="")
    corpus = microgpt.load_corpus(path)
    assert len(corpus.docs) == count and max(map(len, corpus.docs)) == longest
    model = microgpt.GPT(microgpt.GPTConfig(corpus.size), corpus.rng)
    losses = microgpt.train(model, corpus, 120)
    assert losses[-1] < losses[0] < 5
    name = microgpt.sample(model, corpus, corpus.rng)
    assert len(name) <= 16 and set(name) <= set(corpus.chars)


def test_a_long_document_trains_by_its_beginning(corpus):
    """What lies behind block_size changes no loss."""
    doc, losses = "hannah" * 10, []
    for docs in ([doc, "ava"], [doc[:16], "ava"]):
        part = dataclasses.replace(corpus, docs=docs)
        model = microgpt.GPT(microgpt.GPTConfig(corpus.size), random.Random(1))
        losses.append(microgpt.train(model, part, 5))
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"\n \n", "blank"),
        (b"\xef\xbb\xbf\n", "blank"),
        (b"a\nb\xffc\n", r"line 2 is not UTF-8 \(byte 3\)"),
        (b"\xef\xbb\xbfa\nb\xe2\x82", r"line 2 is not UTF-8 \(byte 6\)"),
        (b"a\nb\nc\0d\n", r"line 3 holds a NUL \(byte 5\)"),
        ("anna\n".encode("utf-16"), r"line 1 is not UTF-8 \(byte 0\)"),
    ],
)
def test_unusable_files_are_refused(tmp_path, data, word):
    path = tmp_path / "text"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"text.*{word}"):
        microgpt.load_corpus(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_documents(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_documents(tmp_path / "nothing")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for a writer
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="not an ordinary file"):
            read_documents(path)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no such permissions here")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path, user = tmp_path / "text", os.geteuid()
    path.write_text("anna")
    path.chmod(0)
    try:
        if user == 0:  # root may read anything, so become nobody
            os.seteuid(65534)
        with pytest.raises(PermissionError, match="text"):
            read_documents(path)
    finally:
        os.seteuid(user)


def test_corpora_above_the_memory_are_refused(tmp_path, monkeypatch):
    """Short lines take more memory than their bytes; the first ones tell how much."""
    path = tmp_path / "text"
    path.write_text("anna\n" * 10**6)
    needed = sum(map(len, ["anna"] * 10**6))
    for free, fits in ((2 * needed, False), (50 * needed, True)):
        memory = SimpleNamespace(available=free)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        if fits:
            assert len(read_documents(path)) == 10**6
        else:
            with pytest.raises(
                MemoryError, match=r"text: takes about \d+ MiB .* 8 MiB"
            ):
                read_documents(path)


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


LOGIT = st.floats(-700, 700)


class Dart(random.Random):
    """A generator that always throws the same number u."""

    def random(self):
        return self.u


UNIT = st.floats(0, 1, exclude_max=True)


@given(st.lists(LOGIT, min_size=1), st.floats(1e-320, 1e300), UNIT)
def test_weights_and_draws(logits, temperature, u):
    """Weights are a distribution in the order of the logits; u falls into the drawn."""
    weights = next_token_weights(np.array(logits), temperature)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
    assert (np.diff(weights[np.argsort(logits)]) >= 0).all()
    rng = Dart()
    rng.u = u
    token = rng.choices(range(len(weights)), weights.tolist())[0]
    below = weights[:token].sum()
    assert weights[token] > 0 and below - 1e-9 <= u <= below + weights[token] + 1e-9


@given(st.lists(LOGIT, min_size=1), st.floats(0.1, 10), st.floats(-100, 100))
def test_weights_ignore_a_shift_and_scale_with_the_temperature(logits, t, shift):
    z = np.array(logits)
    expected = next_token_weights(z, t)
    for other, temperature in ((z + shift, t), (z / t, 1), (3 * z, 3 * t)):
        found = next_token_weights(other, temperature)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_low_temperature_is_greedy(trained, corpus):
    names = {microgpt.sample(trained, corpus, random.Random(i), 1e-4) for i in range(9)}
    assert len(names) == 1


@pytest.mark.parametrize("temperature", [1e-320, 5e-324])
def test_the_lowest_temperatures_are_greedy(trained, corpus, temperature):
    names = {
        microgpt.sample(trained, corpus, random.Random(i), t)
        for i in range(3)
        for t in (1e-4, temperature)
    }
    assert len(names) == 1


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
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
