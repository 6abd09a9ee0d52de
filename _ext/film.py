"""The data of the island `training-film`: the runs of both starts, at regular stops."""

import json
import random

import numpy as np

from microgpt import GPT, GPTConfig, load_corpus, sample
from microgpt.training import Recipe, pack_documents, run_steps, training_state

STEPS, EVERY, NAMES = 1000, 25, 5
RECIPE = Recipe(STEPS, 0.01, 0.85, 0.99, 1e-8, 1, 1)  # the defaults of microgpt.train


def still(model, corpus):
    """What is shown at one stop: embeddings (copied), scalars, and a few names."""
    rng = random.Random(1)  # the same draws at every stop
    scalars = {key: x.tolist() for key, x in model.params.items() if x.ndim == 1}
    names = [sample(model, corpus, rng) for _ in range(NAMES)]
    return model.params["wte"].copy(), scalars, names


def run(path, start):
    """Train on `path` from `start`; returns the model, the losses and the stills."""
    corpus = load_corpus(path)
    model = GPT(GPTConfig(corpus.size, start=start), corpus.rng)
    state, losses = training_state(model), np.zeros(STEPS)
    stills = [still(model, corpus)]
    for done in range(0, STEPS, EVERY):
        part = losses[done : done + EVERY]
        block_size = model.config.block_size
        documents = pack_documents(corpus, done, RECIPE, EVERY, block_size)
        run_steps(state, RECIPE, done, documents, part)
        stills.append(still(model, corpus))
    return model, losses, stills


def plane(wte):
    """The two directions (C x 2) in which the columns of wte lie furthest apart."""
    directions = np.linalg.svd(wte - wte.mean(axis=1, keepdims=True))[0][:, :2]
    largest = np.abs(directions).argmax(axis=0)
    return directions * np.sign(directions[largest, [0, 1]])  # signs are arbitrary


def reel(path, start):
    """One start's film: lists with an entry for every stop, all numbers rounded."""
    _, losses, stills = run(path, start)
    tables, scalars, names = zip(*stills, strict=True)
    directions = plane(tables[-1])
    centred = [wte - wte.mean(axis=1, keepdims=True) for wte in tables]
    return {
        "loss": losses.reshape(-1, EVERY).mean(axis=1).round(4).tolist(),
        "names": names,
        "letters": [(directions.T @ x).T.round(2).tolist() for x in centred],
        "scalars": [
            {key: [round(x, 4) for x in pair] for key, pair in stop.items()}
            for stop in scalars
        ],
    }


def script(path):
    """The film as a script: a page opened from the disk cannot fetch a JSON file."""
    film = {start: reel(path, start) for start in ("seed", "asymmetric")}
    film |= {"every": EVERY, "chars": "".join(load_corpus(path).chars)}
    text = json.dumps(film, ensure_ascii=False, separators=(",", ":"))
    return f"window.islands.film = {text};\n"
