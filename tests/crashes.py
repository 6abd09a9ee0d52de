"""Runs that are killed and gone on with, again and again, for test_checkpoints.py.

    python tests/crashes.py FOLDER SIGKILL 200

A warm process forks one child a trial. The child trains with a checkpoint until a
signal stops it at a random moment; another child goes on to the end. The last line of
standard output is a JSON object; its `wrong` counts the runs that ended differently.
"""

import json
import os
import random
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

from tqdm import tqdm

import microgpt

STEPS, EVERY = 60, 12
tqdm.set_lock(threading.RLock())  # else all children share one, and some die with it
tqdm.monitor_interval = 0
CONFIG = {"n_embd": 12, "n_head": 3, "n_layer": 2, "block_size": 5, "tile": 2}
CORPUS = microgpt.load_corpus(Path(__file__).parent.parent / "input.txt")


def run(path, result=None):
    """Train from the checkpoint at `path`, if there is one; write what came of it."""
    corpus = microgpt.Corpus(CORPUS.chars, CORPUS.docs[:500], random.Random(3))
    model = microgpt.GPT(microgpt.GPTConfig(corpus.size, **CONFIG), corpus.rng)
    kept = {"checkpoint": path, "every": EVERY, "resume": True}
    losses = microgpt.train(model, corpus, STEPS, **kept)
    drawn = "".join(microgpt.sample(model, corpus, corpus.rng) for _ in range(3))
    if result:
        found = losses.tobytes() + model.weights.tobytes() + drawn.encode()
        result.write_bytes(found)


def forked(task, *arguments) -> int:
    """Call `task` in a child process; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    signal.alarm(300)  # never hang
    try:
        task(*arguments)
        code = 0
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def seconds(path):
    """How long a whole run takes; in one of several the disk may have been busy."""
    path.unlink(missing_ok=True)
    began = time.perf_counter()
    os.waitpid(forked(run, path), 0)
    return time.perf_counter() - began


def main(folder, name, trials):
    # a process in the background may have been told to ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path, result = folder / "run.safetensors", folder / "result"
    partial, number = folder / "run.safetensors.partial", getattr(signal, name)
    run(path, result)  # compiles
    expected = result.read_bytes()
    duration = statistics.median(seconds(path) for _ in range(5))
    counts = dict.fromkeys(("wrong", "stopped", "begun", "writing"), 0)
    rng = random.Random(len(name))
    for _ in range(trials):
        path.unlink(missing_ok=True)
        child = forked(run, path)
        time.sleep(rng.uniform(0, duration))
        os.kill(child, number)
        _, status = os.waitpid(child, 0)
        counts["stopped"] += status != 0
        counts["begun"] += path.exists()
        counts["writing"] += partial.exists()
        _, status = os.waitpid(forked(run, path, result), 0)
        counts["wrong"] += status != 0 or result.read_bytes() != expected
        result.unlink(missing_ok=True)
    print(json.dumps(counts | {"trials": trials, "duration": duration}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
