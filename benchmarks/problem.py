"""The one task of every contender: the same weights, documents, schedule and Adam."""

import dataclasses
from pathlib import Path

import numpy as np

import microgpt

TEXT = Path(__file__).parent.parent / "input.txt"
LR, BETA1, BETA2, EPS = 0.01, 0.85, 0.99, 1e-8
RMS_EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class Setting:
    """Sizes of a run; `documents` is "names", or "full" for those of a full block."""

    dtype: str = "float32"
    n_embd: int = 16
    n_head: int = 4
    n_layer: int = 1
    block_size: int = 16
    batch_size: int = 1
    threads: int = 1
    start: str = "seed"
    documents: str = "names"

    def label(self) -> str:
        """What differs from the seed configuration, in words; "seed" for nothing."""
        other = dataclasses.asdict(self).items()
        default = dataclasses.asdict(Setting())
        return ", ".join(f"{k} {v}" for k, v in other if v != default[k]) or "seed"


def full_documents(docs: list[str], length: int) -> list[str]:
    """The text of all documents, cut anew into pieces of `length` characters."""
    text = "".join(docs)
    return [text[i : i + length] for i in range(0, len(text) - length + 1, length)]


class Problem:
    """A setting with its corpus, its initial weights and its documents as tokens.

    `weights` holds the initial parameters by name, shaped as in `model.params`.
    """

    def __init__(self, setting: Setting, seed: int = 42):
        self.setting = s = setting
        self.corpus = microgpt.load_corpus(TEXT, seed)
        sizes = (s.n_embd, s.n_head, s.n_layer, s.block_size)
        self.config = microgpt.GPTConfig(self.corpus.size, *sizes, start=s.start)
        self.weights = microgpt.GPT(self.config, self.corpus.rng).params
        if s.documents == "full":
            docs = full_documents(self.corpus.docs, s.block_size)
            self.corpus = dataclasses.replace(self.corpus, docs=docs)

    def model(self, dtype: str) -> microgpt.GPT:
        """The book's model of this setting, with the initial weights."""
        model = microgpt.GPT(self.config, None, dtype)
        self.reset(model)
        return model

    def reset(self, model: microgpt.GPT) -> None:
        """Give a model the initial weights."""
        for name, x in self.weights.items():
            model.params[name][...] = x

    def disturb(self, seed: int = 1) -> None:
        """Move every small parameter, so that the two streams part."""
        rng = np.random.default_rng(seed)
        for x in self.weights.values():
            if x.size <= 2:
                x += rng.normal(0, 0.3, x.shape)

    def tokens(self, start: int, count: int) -> list[np.ndarray]:
        """Token ids of documents start, start + 1, ..., each cut to block_size + 1."""
        corpus, longest = self.corpus, self.setting.block_size + 1
        docs = (corpus.docs[i % len(corpus.docs)] for i in range(start, start + count))
        return [np.array(corpus.encode(doc)[:longest]) for doc in docs]

    def padded(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (count, block_size + 1), BOS to the right, and lengths (count,)."""
        documents = self.tokens(0, count)
        shape = (count, self.setting.block_size + 1)
        tokens = np.full(shape, self.corpus.bos, "int32")
        for row, ids in zip(tokens, documents, strict=True):
            row[: len(ids)] = ids
        return tokens, np.array([len(ids) - 1 for ids in documents], "int32")
