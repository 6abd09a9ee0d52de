"""Fixtures that several test modules share."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import Phase, settings

import microgpt

ROOT = Path(__file__).parent.parent

# the same examples on every run and machine, and no folder of old ones
settings.register_profile("book", derandomize=True, deadline=None, database=None)
# for tools/mutate.py: a mutant is to be found, not to be understood
settings.register_profile(
    "mutation", settings.get_profile("book"), max_examples=12, phases=[Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "book"))


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture
def corpus():
    return microgpt.load_corpus(ROOT / "input.txt")


@pytest.fixture
def odd_model():
    """A model of odd sizes, all different; nothing symmetric is left in its streams."""
    config = microgpt.GPTConfig(
        vocab_size=11, n_embd=12, n_head=3, n_layer=2, block_size=9, tile=2
    )
    rng = random.Random(7)
    model = microgpt.GPT(config, rng)
    model.weights *= 2  # large enough for every gradient to matter
    for x in model.params.values():
        if x.size <= 2:
            x += [rng.gauss(0, 0.3) for _ in range(x.size)]
    return model
