"""Long runs and long documents: memory that does not grow, numbers that stay right."""

import json
import subprocess
import sys

import pytest

STEPS = 1_000_000
TRAINING = f"""
import json, psutil, microgpt, numpy as np
from microgpt import training

sizes = dict(n_embd=12, n_head=3, n_layer=2, block_size=5, tile=2)
corpus = microgpt.load_corpus("input.txt")
model = microgpt.GPT(microgpt.GPTConfig(corpus.size, **sizes), corpus.rng, "float32")
resident, advance = [], training.advance

def watched(run, stop):
    advance(run, stop)
    resident.append((run.done, psutil.Process().memory_info().rss))

training.advance = watched
losses = microgpt.train(model, corpus, {STEPS})
early = max(size for done, size in resident if done <= {STEPS} // 10)
late = max(size for done, size in resident)
print(json.dumps(dict(
    early=early, late=late, finite=bool(np.isfinite(losses).all()),
    last=losses[-1000:].mean(), chunks=len(resident),
)))
"""


def run(code, root):
    """Run code in a process of its own; what it prints, as JSON."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_million_steps_take_no_more_memory_than_the_first(root):
    found = run(TRAINING, root)
    assert found["finite"] and found["last"] < 2.5, found
    assert found["chunks"] > 10, found
    assert found["late"] - found["early"] < 5e6, found


LONG = """
import json, sys, psutil, tracemalloc, numpy as np
from pathlib import Path
from microgpt import flash_attention, flash_attention_backward

peaks, d = {}, 16
for N in (100, 8192, 16384, 32768):
    rng = np.random.default_rng(N)
    q, k, v = (np.asfortranarray(rng.normal(size=(d, N)), "f4") for _ in range(3))
    rows = np.sort(rng.choice(N, 12, replace=False))
    rows[[0, -1]] = 0, N - 1
    do = np.zeros_like(q)
    do[:, rows] = rng.normal(size=(d, 12))
    tracemalloc.start()
    o, m, l = flash_attention(q, k, v, 1)
    dq, dk, dv = flash_attention_backward(do, q, k, v, o, m, l, 1)
    peaks[N] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

assert all(np.isfinite(x).all() for x in (o, m, l, dq, dk, dv))
q, k, v, do = (x.astype("f8") for x in (q, k, v, do))
expected = [np.zeros_like(q) for _ in range(3)]
error = {"o": 0.0}
for i in rows:  # naive attention, one query at a time
    z = q[:, i] @ k[:, : i + 1] / 4
    p = np.exp(z - z.max())
    p /= p.sum()
    answer = v[:, : i + 1] @ p
    error["o"] = max(error["o"], np.abs(o[:, i] - answer).max())
    ds = p * (do[:, i] @ v[:, : i + 1] - do[:, i] @ answer) / 4
    expected[0][:, i] = k[:, : i + 1] @ ds
    expected[1][:, : i + 1] += np.outer(q[:, i], ds)
    expected[2][:, : i + 1] += np.outer(do[:, i], p)
for name, found, wanted in zip(("dq", "dk", "dv"), (dq, dk, dv), expected):
    error[name] = np.abs(found - wanted).max() / np.abs(wanted).max()
status = Path("/proc/self/status")
if status.exists():  # ru_maxrss would begin at the peak of the parent process
    resident = 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
elif sys.platform == "win32":
    resident = psutil.Process().memory_info().peak_wset
else:
    import resource
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
found = {"peaks": list(peaks.values()), "resident": resident, "error": error}
print(json.dumps(found, default=float))
"""


@pytest.mark.equation("flash-forward", "flash-backward")
def test_a_document_of_32768_positions(root):
    found = run(LONG, root)
    _, one, two, four = found["peaks"]  # the first one has compiled the kernels
    assert 1.8 < two / one < 2.2 and 1.8 < four / two < 2.2, found
    assert four < 32768 * 4 * 16 * 40, found  # forty arrays like q; not N x N
    assert found["resident"] < 1.5e9, found  # N x N numbers would be 4.3e9 bytes
    assert max(found["error"].values()) < 1e-4, found
