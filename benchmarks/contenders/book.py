"""The book's own program, through the function that its readers call."""

import numpy as np

import microgpt

from .contender import Contender


class Book(Contender):
    """`microgpt.train`; its time includes encoding the documents, the others' not."""

    def __init__(self, problem):
        super().__init__(problem)
        self.model = problem.model(self.setting.dtype)
        self.options = {
            name: getattr(self.setting, name) for name in ("batch_size", "threads")
        }

    def reset(self):
        self.problem.reset(self.model)

    def loss_and_grads(self, tokens):
        return self.model.loss_and_grads(tokens)

    def run(self, steps):
        losses = microgpt.train(self.model, self.problem.corpus, steps, **self.options)
        return np.asarray(losses)
