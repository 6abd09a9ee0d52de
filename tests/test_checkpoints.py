"""Nothing is lost: a run that is cut short goes on, bit for bit, or is refused."""

import contextlib
import dataclasses
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import microgpt
from microgpt import model as files
from microgpt import training

ODD = {"n_embd": 12, "n_head": 3, "n_layer": 2, "block_size": 5, "tile": 2}
TINY = {"n_embd": 2, "n_head": 1, "n_layer": 1, "block_size": 2}
NAMES = microgpt.load_corpus(Path(__file__).parent.parent / "input.txt")
RECIPE = training.Recipe(12, 0.01, 0.85, 0.99, 1e-8, 1, 1)
posix = pytest.mark.skipif(os.name != "posix", reason="signals and forks of POSIX")


def fresh(dtype="float64", seed=3, docs=200, **sizes):
    """A model and a corpus from a seed, always the same."""
    rng = random.Random(seed)
    corpus = microgpt.Corpus(NAMES.chars, NAMES.docs[:docs], rng)
    config = microgpt.GPTConfig(corpus.size, **(ODD | sizes), start="asymmetric")
    return microgpt.GPT(config, rng, dtype), corpus


def outcome(model, corpus, losses):
    """All that comes of a run, to compare bit for bit; draws a sample."""
    drawn = [microgpt.sample(model, corpus, corpus.rng) for _ in range(3)]
    rest = corpus.rng.gauss(0, 1), corpus.rng.random()
    return losses.tobytes(), model.weights.tobytes(), drawn, rest


def interrupt(monkeypatch, last):
    """Press Ctrl-C before the first chunk that goes beyond step `last`."""
    real = training.advance

    def advance(run, stop):
        if stop > last:
            raise KeyboardInterrupt
        real(run, stop)

    monkeypatch.setattr(training, "advance", advance)


def tiny_run(recipe=RECIPE, **changes):
    """A run that fits into a few kilobytes, not begun; it compiles nothing."""
    return training.Run(*fresh(**(TINY | changes)), recipe)


def state(run):
    """Every bit that a checkpoint may change in a run."""
    arrays = [x.tobytes() for x in (*run.arrays.values(), run.losses)]
    return arrays, run.done, run.corpus.rng.getstate()


@pytest.fixture
def kept(tmp_path):
    """The file of a small run with seven of its twelve steps done, in made-up state."""
    run = tiny_run()
    noise = np.random.default_rng(5)
    for x in run.arrays.values():
        x[:] = noise.normal(size=x.shape)
    run.losses[:7], run.done = noise.normal(size=7), 7
    run.corpus.rng.gauss(0, 1)  # so that its second number is in store
    path = tmp_path / "run.safetensors"
    training.save_run(path, run)
    return path, state(run)


# --- the same bits


@pytest.mark.equation("training-run")
@pytest.mark.parametrize("every", [7, 1000])
@pytest.mark.parametrize("threads", [(1, 2), (2, 1)])
@pytest.mark.parametrize("batch_size", [1, 9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_resumed_run_is_the_whole_run(
    dtype, batch_size, threads, every, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "CHUNK", 3)
    settings = {"steps": 40, "batch_size": batch_size}
    model, corpus = fresh(dtype)
    losses = microgpt.train(model, corpus, **settings)
    expected = outcome(model, corpus, losses)
    settings |= {"checkpoint": tmp_path / "run.safetensors"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as stopped:
        interrupt(patch, 23)
        microgpt.train(*fresh(dtype), **settings, threads=threads[0], every=every)
    assert str(stopped.value).endswith("run.safetensors holds 21 of 40 steps")
    for every in (11, 5):  # the second time it is complete
        model, corpus = fresh(dtype)
        model.weights[:] = 0.5  # all of this must come from the file
        corpus.rng.seed(every)
        losses = microgpt.train(
            model, corpus, **settings, threads=threads[1], every=every, resume=True
        )
        assert outcome(model, corpus, losses) == expected


def test_repeated_runs_agree_across_processes_and_threads(root):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import hashlib, microgpt, test_checkpoints as t\n"
        "model, corpus = t.fresh()\n"
        "losses = microgpt.train(model, corpus, 40, batch_size=9, threads={})\n"
        "found = repr(t.outcome(model, corpus, losses)).encode()\n"
        "print(hashlib.sha256(found).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code.format(threads)],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in (1, 1, 2, 3)
    }
    assert len(found) == 1 and len(found.pop()) == 65


@pytest.mark.parametrize("every", [1, 4, 12, 100])
def test_checkpoints_come_at_multiples_and_at_the_end(every, tmp_path, monkeypatch):
    real, seen = training.save_run, []

    def save_run(path, run):
        seen.append(run.done)
        real(path, run)

    monkeypatch.setattr(training, "save_run", save_run)
    path = tmp_path / "run.safetensors"
    microgpt.train(*fresh(), 14, checkpoint=str(path), every=every)
    assert seen == sorted({0, *range(every, 15, every), 14})
    assert os.listdir(tmp_path) == ["run.safetensors"]


# --- killed, interrupted


@posix
@pytest.mark.parametrize(("name", "trials"), [("SIGKILL", 200), ("SIGINT", 40)])
def test_a_run_stopped_at_any_moment_goes_on(name, trials, root, tmp_path):
    command = [sys.executable, "tests/crashes.py", tmp_path, name, str(trials)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["wrong"] == 0, counts
    assert min(counts["stopped"], counts["begun"]) > trials / 10, counts


@posix
@pytest.mark.parametrize("call", range(6))
@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_crash_in_the_middle_of_a_write_leaves_a_whole_file(name, call, tmp_path):
    """Killed before or after the disk was asked to flush, or the file to be renamed."""
    path = tmp_path / "run.safetensors"
    child = os.fork()
    if child == 0:
        where = os if name == "fsync" else Path
        real, count = getattr(where, name), iter(range(99))

        def dying(*arguments):
            number = next(count)
            for part in (0, 1):
                if 2 * number + part == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                if part == 0:
                    result = real(*arguments)
            return result

        setattr(where, name, dying)
        run = tiny_run()
        for run.done in range(4):
            run.losses[: run.done] = 1.0
            training.save_run(path, run)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    number, after = divmod(call, 2)
    if name == "fsync":  # of the file and, when it has its name, of the folder
        number, after = divmod(number, 2)
    run = tiny_run()
    assert path.exists() == (number + after > 0)
    if path.exists():
        training.restore_run(path, run)
        assert run.done == number - 1 + after
    training.save_run(path, run)  # over whatever was left behind
    assert os.listdir(tmp_path) == ["run.safetensors"]


@pytest.fixture
def ctrl_c():
    """Ctrl-C is not ignored, as it may be in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_for_the_end_of_the_block(ctrl_c):
    done = False
    with pytest.raises(KeyboardInterrupt), training.uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done
    with training.uninterrupted():
        pass  # the old handler is back, and nothing is left to be raised


def test_a_run_in_another_thread(tmp_path):
    found = []

    def run():
        path = tmp_path / "run.safetensors"
        found.append(microgpt.train(*fresh(), 14, checkpoint=path))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert np.array_equal(found[0], microgpt.train(*fresh(), 14))


# --- errors of the disk


@contextlib.contextmanager
def largest_file(size):
    """No file may grow beyond `size` bytes; the system's own error is raised."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def full_disk(folder):
    """What is written beside the checkpoint goes to the device that is always full."""
    (folder / "run.safetensors.partial").symlink_to("/dev/full")
    yield


@posix
@pytest.mark.parametrize("kind", ["too large", "full"])
def test_a_full_disk_leaves_the_earlier_checkpoint(kind, kept):
    path, _ = kept
    if kind == "full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    before, run = path.read_bytes(), tiny_run()
    with largest_file(1000) if kind == "too large" else full_disk(path.parent):
        with pytest.raises(OSError) as found:
            training.save_run(path, run)
    assert found.value.filename == str(path) and found.value.strerror
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@posix
def test_a_folder_that_is_read_only():
    """As a user without privileges, whoever runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        path, me = Path(name) / "run.safetensors", os.geteuid()
        training.save_run(path, tiny_run())
        before = path.read_bytes()
        os.chmod(name, 0o555)
        try:
            if me == 0:
                os.seteuid(65534)
            with pytest.raises(OSError) as found:
                training.save_run(path, tiny_run())
        finally:
            os.seteuid(me)
            os.chmod(name, 0o755)
        assert found.value.filename == str(path)
        assert path.read_bytes() == before and os.listdir(name) == [path.name]


def test_a_file_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda n: events.append("fsync") or fsync(n))
    named = lambda a, b: events.append("replace") or replace(a, b)  # noqa: E731
    monkeypatch.setattr(Path, "replace", named)
    training.save_run(tmp_path / "run.safetensors", tiny_run())
    assert events[:2] == ["fsync", "replace"]
    assert events[2:] == (["fsync"] if os.name == "posix" else [])


# --- files that do not belong to the run


def refused(path, run, match):
    """The reason for which `run` does not go on from `path`; it is one line."""
    before = state(run)
    with pytest.raises(ValueError, match=match) as found:
        training.restore_run(path, run)
    assert state(run) == before
    assert str(path) in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    "name", ["n_embd", "n_head", "n_layer", "block_size", "tile", "dtype", "docs"]
)
def test_another_model_or_corpus_is_refused(name, kept):
    path, _ = kept
    other = {"n_embd": 4, "n_head": 2, "n_layer": 2, "block_size": 3, "tile": 1}
    other |= {"dtype": "float32", "docs": 199}
    match = "documents" if name == "docs" else name
    refused(path, tiny_run(**{name: other[name]}), match)


def test_another_order_of_the_documents_is_refused(kept):
    run = tiny_run()
    run.corpus.docs.reverse()
    refused(kept[0], run, "documents")


@pytest.mark.parametrize("name", ["steps", "lr", "beta1", "beta2", "eps", "batch_size"])
def test_another_recipe_is_refused(name, kept):
    value = getattr(RECIPE, name) * (2 if name in ("steps", "batch_size") else 0.5)
    refused(kept[0], tiny_run(RECIPE._replace(**{name: value})), name)


def test_another_number_of_threads_is_welcome(kept):
    path, expected = kept
    run = tiny_run(RECIPE._replace(threads=2))
    training.restore_run(path, run)
    assert state(run) == expected


def rewritten(path, form=training.RUN_FORMAT, metadata=None, **tensors):
    """Write the file anew with some parts replaced, and a right checksum."""
    old, arrays = files.read_file(path, training.RUN_FORMAT)
    old = {k: v for k, v in old.items() if k not in ("format", "sha256")}
    files.write_file(path, form, old | (metadata or {}), arrays | tensors)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"form": "flash-microgpt-run-2"}, "run-2"),
        ({"form": files.FORMAT}, "format"),
        ({"losses": np.zeros(13)}, "losses"),
        ({"losses": np.zeros(7, "float32")}, "losses"),
        ({"losses": np.zeros((1, 7))}, "losses"),
        ({"rng": np.full(625, 625, "uint32")}, "state"),
        ({"rng": np.zeros(624, "uint32")}, "rng"),
        ({"m": np.zeros(3)}, "m is"),
        ({"v": np.zeros(3, "int8")}, "v is"),
        ({"extra": np.zeros(3)}, "extra"),
        ({"metadata": {"gauss_next": "[1]"}}, "float"),
        ({"metadata": {"gauss_next": "?"}}, "Expecting"),
        ({"metadata": {"settings": "[]"}}, "attribute|mapping|operand"),
        ({"metadata": {"settings": "[" * 100_000}}, "recursion|depth|Recursion"),
    ],
)
def test_what_cannot_be_true_is_refused(changes, match, kept):
    path, _ = kept
    rewritten(path, **changes)
    refused(path, tiny_run(), match)


@pytest.mark.parametrize("name", ["weights", "m", "v"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(kept, name, number):
    path, _ = kept
    spoilt = tiny_run().arrays[name].copy()
    spoilt[2] = number
    rewritten(path, **{name: spoilt})
    refused(path, tiny_run(), f"{name} has numbers that are not finite")


def test_metadata_is_part_of_the_checksum(kept):
    path, _ = kept
    data = path.read_bytes()
    gauss = data.index(b'"gauss_next"') + len(b'"gauss_next":"') + 2
    for place in (gauss, data.index(b"0.85")):
        damaged = bytearray(data)
        damaged[place] = ord("1") if damaged[place] != ord("1") else ord("2")
        path.write_bytes(damaged)
        refused(path, tiny_run(), "checksum")


def test_every_truncation_is_refused(kept):
    path, _ = kept
    data, run = path.read_bytes(), tiny_run()
    before = state(run)
    for length in range(len(data) - 1, -1, -1):
        os.truncate(path, length)
        with pytest.raises(ValueError):
            training.restore_run(path, run)
    assert state(run) == before
    path.write_bytes(data + b"\0")
    refused(path, run, "safetensors")


def test_ten_thousand_damaged_bytes_are_refused(kept):
    """Only white space behind the header may change and change nothing."""
    path, expected = kept
    data, rng, run = path.read_bytes(), random.Random(9), tiny_run()
    before, accepted = state(run), 0
    with path.open("r+b", buffering=0) as file:
        for _ in range(10_000):
            place = rng.randrange(len(data))
            file.seek(place)
            file.write(bytes([data[place] ^ rng.randrange(1, 256)]))
            try:
                training.restore_run(path, run)
            except ValueError:
                pass
            else:
                accepted += 1
                assert data[place : place + 1] == b" " and state(run) == expected
                run = tiny_run()
            file.seek(place)
            file.write(data[place : place + 1])
    assert state(run) == before and accepted < 5
    training.restore_run(path, run)
    assert state(run) == expected


class Bomb:
    """What a pickle can do when it is opened."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickle_is_not_opened(kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, _ = kept
    path.write_bytes(pickle.dumps(Bomb()))
    refused(path, tiny_run(), "checkpoint")
    assert not Path("exploded").exists()


def test_a_header_that_lies_takes_no_memory(kept):
    """A terabyte of holes that the header calls weights."""
    path, _ = kept
    entry = {"dtype": "F64", "shape": [2**37], "data_offsets": [0, 2**40]}
    text = json.dumps({"__metadata__": {"format": training.RUN_FORMAT}, "v": entry})
    header = len(text).to_bytes(8, "little") + text.encode()
    path.write_bytes(header)
    refused(path, tiny_run(), "not a usable")
    try:
        os.truncate(path, len(header) + 2**40)
    except OSError:
        pytest.skip("this disk has no files with holes")
    refused(path, tiny_run(), "free in memory")
    with pytest.raises(ValueError, match="free in memory"):
        microgpt.load_model(path)


def test_what_is_no_file(tmp_path):
    with pytest.raises(OSError):
        training.restore_run(tmp_path / "none", tiny_run())
    refused(tmp_path, tiny_run(), "not an ordinary file")
    with pytest.raises(OSError, match="not an ordinary file"):
        training.save_run(tmp_path, tiny_run())


def test_a_model_file_of_the_first_version_is_still_read(tmp_path):
    """Its checksum covered the configuration, then the characters, then the numbers."""
    import hashlib

    model, corpus = fresh(**TINY)
    texts = {"config": json.dumps(dataclasses.asdict(model.config))}
    texts["chars"] = json.dumps(corpus.chars)
    tensors = {name: np.ascontiguousarray(x) for name, x in model.params.items()}
    digest = hashlib.sha256()
    for name in ("config", "chars"):
        digest.update(f"{name} {texts[name]}\n".encode())
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {x.shape}\n".encode() + x.tobytes())
    texts |= {"format": "flash-microgpt-1", "sha256": digest.hexdigest()}
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(tensors, texts))
    assert np.array_equal(microgpt.load_model(path)[0].weights, model.weights)


# --- a run that loses its footing


@pytest.mark.parametrize("name", ["wte", "0.wq", "1.mlp.beta", "contract"])
def test_the_parameter_that_is_not_finite_first_is_named(name):
    model, corpus = fresh()
    run = training.Run(model, corpus, RECIPE._replace(steps=40))
    training.advance(run, 10)
    shapes = files.parameter_shapes(model.config)
    v = files.views(run.state.v, shapes)
    files.named_parameters(v)[name].flat[0] = -1.0  # its root will be a nan
    with pytest.raises(FloatingPointError) as found:
        training.advance(run, 40)
    assert f"not finite: {name};" in str(found.value)
    step = int(re.search(r"the loss of step (\d+)", str(found.value))[1])
    assert step == 11 and run.done == 10
    assert all(np.isfinite(run.losses[: run.done])) and type(run.done) is int


def first_bad_step(make, whole):
    """A run that fails, in one chunk or step by step: its arrays, steps and message."""
    run = make()
    with pytest.raises(FloatingPointError) as found:
        for stop in (run.recipe.steps,) if whole else range(1, run.recipe.steps + 1):
            training.advance(run, stop)
    return state(run)[0][:3], run.done, str(found.value)


@pytest.mark.parametrize("bad", ["lm_head", "m of 0.wq", "v of 1.mlp.beta"])
@pytest.mark.parametrize("step", [1, 7, 12])
def test_a_chunk_fails_at_the_step_that_failed(bad, step, monkeypatch):
    """Whatever is not finite and wherever: the run is as it was before that step."""
    real = training.run_steps
    key, name = bad.split(" of ") if " of " in bad else ("weights", bad)

    def run_steps(state, recipe, done, documents, losses):
        for i in range(len(losses)):
            part = documents._replace(starts=documents.starts[i:])
            part = part._replace(ends=documents.ends[i:])
            real(state, recipe, done + i, part, losses[i : i + 1])
            if done + i + 1 == step:  # as an overflow in this step would leave it
                flat = getattr(state, key)
                shapes = files.parameter_shapes(model.config)
                p = files.named_parameters(files.views(flat, shapes))
                p[name].flat[1] = np.inf

    model, corpus = fresh()
    start = model.weights.copy()
    monkeypatch.setattr(training, "run_steps", run_steps)

    def make():
        model.weights[:] = start
        return training.Run(model, corpus, RECIPE)

    found = first_bad_step(make, True)
    assert found == first_bad_step(make, False)
    assert found[1] == step - 1
    assert re.search(rf"step {step} is \d.*; not finite: {bad};", found[2])


def test_gradients_whose_squares_overflow_are_noticed():
    """v is infinite after the first step, and the weight would be frozen for ever."""
    sizes = {"n_embd": 16, "n_head": 4, "n_layer": 1, "block_size": 16, "tile": 16}
    model, corpus = fresh("float32", **sizes)
    model.params["lm_head"][:] *= 1e22
    before, run = model.weights.copy(), training.Run(model, corpus, RECIPE)
    with pytest.raises(FloatingPointError, match=r"1 is \d.*: v of .*weights$"):
        training.advance(run, 12)
    assert np.array_equal(model.weights, before) and run.done == 0


def test_a_run_that_overflows_keeps_its_checkpoint(tmp_path):
    path, (model, corpus) = tmp_path / "run.safetensors", fresh()
    settings = {"steps": 12, "lr": 1e200, "every": 1, "checkpoint": path}
    with pytest.raises(FloatingPointError, match="step 2 is nan"):
        microgpt.train(model, corpus, **settings)
    model, corpus = fresh()
    run = training.Run(model, corpus, RECIPE._replace(lr=1e200))
    training.restore_run(path, run)
    assert run.done == 1 and np.isfinite(model.weights).all()


# --- the command line


@pytest.fixture
def command(root, tmp_path):
    """Run `python -m microgpt ...` in a folder that holds a small input.txt alone."""
    (tmp_path / "input.txt").write_text("ava\nanna\n\n  eve \nhannah\n")
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    settings["env"] = os.environ | {"PYTHONPATH": str(root), "TQDM_DISABLE": "1"}

    def start(line, **more):
        words = [sys.executable, "-m", "microgpt", *line.split()]
        return subprocess.Popen(words, cwd=tmp_path, **settings, **more)

    def run(line, **more):
        process = start(line, **more)
        return *process.communicate(), process.returncode

    run.start, run.folder = start, tmp_path
    return run


LINE = "--steps 20000 --samples 3 --save m --losses l.csv"


def saved(folder):
    """Weights and losses in the files of a finished run, which are then removed."""
    model, _ = microgpt.load_model(folder / "m")
    found = model.weights.tobytes(), (folder / "l.csv").read_text()
    for name in ("m", "l.csv"):
        (folder / name).unlink()
    return found


@posix
def test_ctrl_c_and_again(command):
    line = LINE.replace("20000", "200000")  # over a second is left to stop it in
    expected = command(line)[0], saved(command.folder)

    def default():  # a process in the background may have been told to ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)

    line += " --checkpoint run.safetensors --every 1000"
    process = command.start(line, preexec_fn=default)
    path, seen = command.folder / "run.safetensors", set()
    deadline = time.monotonic() + 300
    while len(seen) < 3:  # the file of the beginning and two later ones
        assert process.poll() is None and time.monotonic() < deadline
        seen |= {path.stat().st_mtime_ns} if path.exists() else set()
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and said.count("\n") == 1, said
    assert said.startswith("microgpt: stopped; run.safetensors holds ")
    assert said.endswith(" of 200000 steps\n")
    assert sorted(os.listdir(command.folder)) == ["input.txt", "run.safetensors"]
    for _ in range(2):  # the second time it is complete
        printed, said, code = command(line + " --resume")
        assert (code, said) == (0, "")
        assert (printed, saved(command.folder)) == expected


@posix
def test_a_disk_that_fills_up_in_the_middle(command):
    expected = command(LINE)[0], saved(command.folder)

    def limit():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))

    line = LINE + " --checkpoint run.safetensors --every 200"
    _, said, code = command(line, preexec_fn=limit)
    assert code == 2 and said.count("\n") == 1, said
    assert said.startswith("microgpt: error: run.safetensors: ")
    assert sorted(os.listdir(command.folder)) == ["input.txt", "run.safetensors"]
    printed, said, code = command(line + " --resume")
    assert (code, said) == (0, "")
    assert (printed, saved(command.folder)) == expected


def test_what_the_command_refuses(command):
    line = "--steps 5 --samples 1 --checkpoint run.safetensors"
    assert command(line)[2] == 0
    path = command.folder / "run.safetensors"
    before = path.read_bytes()
    for words, reason in (
        (line, "there already"),
        ("--resume", "--resume needs --checkpoint"),
        (line + " --resume --save run.safetensors.partial", "different files"),
        ("--checkpoint input.txt --resume", "different files"),
        (line + " --every 0", "--every"),
        (line + " --resume --lr 0.02", "lr is 0.01 in it, but 0.02"),
        (line + " --resume --n-embd 8", "n_embd"),
        (line + " --resume --seed 7", "documents"),
        (line + " --resume --batch-size 2", "batch_size"),
        (line + " --resume --dtype float32", "dtype"),
    ):
        _, said, code = command(words)
        assert code == 2 and said.count("\n") == 1 and reason in said, (words, said)
        assert path.read_bytes() == before
    path.write_bytes(before[:-1])
    _, said, code = command(line + " --resume")
    assert code == 2 and said.count("\n") == 1 and "run.safetensors" in said
    assert sorted(os.listdir(command.folder)) == ["input.txt", "run.safetensors"]


def test_a_partial_file_of_a_killed_run_is_written_over(command):
    (command.folder / "run.safetensors.partial").write_bytes(b"half a")
    line = "--steps 5 --samples 1 --checkpoint run.safetensors --resume"
    assert command(line)[2] == 0
    assert sorted(os.listdir(command.folder)) == ["input.txt", "run.safetensors"]


def test_batches_and_threads_from_the_command_line(command):
    line = "--steps 20 --samples 1 --batch-size 9"
    one, two = command(line), command(line + " --threads 2")
    assert one == two and one[2] == 0
    assert one[0] != command("--steps 20 --samples 1")[0]


def test_a_checkpoint_is_not_overwritten_unasked(tmp_path):
    path = tmp_path / "run.safetensors"
    microgpt.train(*fresh(), 14, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError) as found:
        microgpt.train(*fresh(), 14, checkpoint=path)
    assert found.value.filename == str(path) and path.read_bytes() == before
    with pytest.raises(ValueError, match="resume"):
        microgpt.train(*fresh(), 14, resume=True)
