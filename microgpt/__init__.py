# %% chapters/11_command_line.ipynb #06d2f75a
"""A tiny GPT with hand-derived gradients, one module for each chapter of the book."""

from microgpt.attention import naive_attention, naive_attention_backward
from microgpt.data import Corpus, Vocabulary, load_corpus
from microgpt.flash import flash_attention, flash_attention_backward
from microgpt.hyper_connections import sinkhorn
from microgpt.model import GPT, GPTConfig, load_model, parameter_count, save_model
from microgpt.sampling import sample, sample_many
from microgpt.training import train

__all__ = [
    "GPT",
    "Corpus",
    "GPTConfig",
    "Vocabulary",
    "flash_attention",
    "flash_attention_backward",
    "load_corpus",
    "load_model",
    "naive_attention",
    "naive_attention_backward",
    "parameter_count",
    "sample",
    "sample_many",
    "save_model",
    "sinkhorn",
    "train",
]
