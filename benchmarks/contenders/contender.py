"""What the worker asks of every contender."""

import numpy as np


class Contender:
    """A program that trains the model of a `Problem`.

    `loss_and_grads` is checked, `run` is timed; `prepare` compiles what `run` needs,
    and `reset` goes back to the initial weights, both outside the measured time.
    """

    batches = True  # whether a step may have several documents

    def __init__(self, problem):
        self.problem, self.setting = problem, problem.setting
        if self.setting.batch_size > 1 and not self.batches:
            raise NotImplementedError("it takes one document a step")

    def loss_and_grads(self, tokens) -> tuple[float, dict[str, np.ndarray]]:
        """Loss of a document and gradients by name, shaped as the book's."""
        raise NotImplementedError

    def prepare(self, steps: int) -> None:
        """Compile and fetch whatever `run(steps)` will use."""
        self.reset()
        self.run(steps)

    def reset(self) -> None:
        """Go back to the initial weights and forget Adam's means."""
        raise NotImplementedError

    def run(self, steps: int) -> np.ndarray:
        """Train for `steps` steps from the first document on; returns the losses."""
        raise NotImplementedError


def steps_of(problem, steps: int) -> list[list[np.ndarray]]:
    """The documents of each step: `batch_size` of them."""
    B = problem.setting.batch_size
    documents = problem.tokens(0, steps * B)
    return [documents[i : i + B] for i in range(0, len(documents), B)]


def adam_factors(steps: int, lr=0.01, beta1=0.85, beta2=0.99):
    """Two factors a step: the rate with the first bias correction, and the second.

    The rate falls linearly from lr to lr / steps; float64 arrays of length `steps`.
    """
    i = np.arange(steps)
    return lr * (1 - i / steps) / (1 - beta1 ** (i + 1)), 1 / (1 - beta2 ** (i + 1))
