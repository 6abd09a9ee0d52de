"""The command line as its user meets it: processes, exit codes, files left behind."""

import csv
import os
import subprocess
import sys

import pytest

SMALL = ("--steps", "5", "--samples", "2")


@pytest.fixture
def run(root, tmp_path):
    """Run `python -m microgpt ...` in an empty folder that holds a small input.txt."""
    (tmp_path / "input.txt").write_text("ava\nanna\n\n  eve \nhannah\n")

    def run(*arguments, **more):
        return subprocess.run(
            [sys.executable, "-m", "microgpt", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(root), "TQDM_DISABLE": "1"},
            **more,
        )

    run.folder = tmp_path
    return run


def files(run):
    return sorted(path.name for path in run.folder.iterdir())


def refused(run, *arguments):
    """The one line that a bad call prints; exit code 2 and no new file are checked."""
    before = files(run)
    done = run(*arguments)
    assert done.returncode == 2, done
    assert done.stdout == "" and done.stderr.count("\n") == 1, done
    assert "Traceback" not in done.stderr
    assert files(run) == before
    return done.stderr


def test_train_writes_what_it_was_asked_for(run):
    done = run("train", *SMALL, "--losses", "out.csv", "--save", "m.safetensors")
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("sample") for line in done.stdout.splitlines()) == 2
    assert files(run) == ["input.txt", "m.safetensors", "out.csv"]
    rows = list(csv.reader((run.folder / "out.csv").open()))
    assert rows[0] == ["step", "loss"]
    assert [int(row[0]) for row in rows[1:]] == [1, 2, 3, 4, 5]
    assert all(0 < float(row[1]) < 10 for row in rows[1:])


def test_train_is_the_default_command_and_repeats_itself(run):
    first, second = run(*SMALL), run("train", *SMALL)
    assert first.returncode == 0 and first.stdout == second.stdout


def test_sample_from_a_saved_model(run):
    run("train", *SMALL, "--save", "m.safetensors")
    done = run("sample", "m.safetensors", "--n", "3", "--seed", "7", "--prompt", "an")
    names = [line.split(": ")[1] for line in done.stdout.splitlines()]
    assert len(names) == 3 and all(name.startswith("an") for name in names)
    again = run("sample", "m.safetensors", "--n", "3", "--seed", "7", "--prompt", "an")
    assert again.stdout == done.stdout


@pytest.mark.parametrize("command", [(), ("train",), ("sample",)])
def test_help(run, command):
    done = run(*command, "--help")
    assert done.returncode == 0 and "usage: " in done.stdout


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "nothing.txt"),
        (b"", "empty"),
        (b"\n  \n\n", "blank"),
        (b"anna\n\xff\xfe\n", "line 2 is not UTF-8 (byte 5)"),
        (b"anna\ne\0ve\n", "line 2 holds a NUL (byte 6)"),
    ],
)
def test_bad_corpus(run, content, word):
    if content is not None:
        (run.folder / "nothing.txt").write_bytes(content)
    message = refused(run, "train", "--input", "nothing.txt", *SMALL)
    assert "nothing.txt" in message and word in message


def test_corpus_is_a_directory(run):
    assert "directory" in refused(run, "train", "--input", ".", *SMALL)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--steps", "0"),
        ("--steps", "-3"),
        ("--steps", "many"),
        ("--temperature", "0"),
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--temperature", "inf"),
        ("--temperature", "1e-400"),
        ("--samples", "-1"),
        ("--n-embd", "10", "--n-head", "4"),
        ("--dtype", "float16"),
        ("--losses", "no/such/folder/out.csv"),
        ("--save", "."),
        ("--save", "m", "--losses", "m"),
        ("--save", "m", "--losses", "m.partial"),
        ("--save", "m.partial", "--losses", "M"),
        ("--save", "input.txt"),
        ("--input", "m.partial", "--save", "m"),
        ("--unknown",),
    ],
)
def test_bad_options(run, arguments):
    refused(run, "train", *arguments)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_corpus_is_a_pipe(run):
    os.mkfifo(run.folder / "pipe")
    assert "not an ordinary file" in refused(run, "train", "--input", "pipe", *SMALL)


def test_losses_and_model_side_by_side(run):
    done = run("train", *SMALL, "--save", "m", "--losses", "m.csv")
    assert done.returncode == 0 and files(run) == ["input.txt", "m", "m.csv"]


def test_the_lowest_temperature(run):
    done = run("train", *SMALL, "--temperature", "1e-320")
    assert done.returncode == 0 and len(set(done.stdout.splitlines()[-2:])) == 2


def test_letters_that_the_terminal_does_not_have(run, monkeypatch):
    """Any text, even where the output has no letter for it."""
    (run.folder / "input.txt").write_text("李\n李\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run("train", "--steps", "100", "--samples", "2", "--temperature", "0.01")
    assert done.returncode == 0, done.stderr
    assert "sample  1: \\u674e" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="Windows has no preexec_fn")
def test_a_closed_output_loses_no_file(run):
    """As `>&-` in a shell leaves it: Python then has no standard output at all."""
    line = (*SMALL, "--losses", "out.csv", "--save", "m")
    done = run(*line, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")
    assert files(run) == ["input.txt", "m", "out.csv"]
    done = run("--steps", "0", preexec_fn=lambda: os.close(1))
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_bad_prompt_and_bad_model(run):
    run("train", *SMALL, "--save", "m.safetensors")
    assert "'!'" in refused(run, "sample", "m.safetensors", "--prompt", "a!")
    refused(run, "sample", "m.safetensors", "--prompt", "a" * 17)
    refused(run, "sample", "m.safetensors", "--temperature", "0")
    assert "none.st" in refused(run, "sample", "none.st")
    assert "input.txt" in refused(run, "sample", "input.txt")
    data = (run.folder / "m.safetensors").read_bytes()
    (run.folder / "m.safetensors").write_bytes(data[:-9])
    assert "m.safetensors" in refused(run, "sample", "m.safetensors")
    refused(run, "sample", ".")


@pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 0)() == 0, reason="this user may write anywhere"
)
def test_losses_that_cannot_be_written_leave_nothing(run):
    run.folder.chmod(0o555)
    try:
        refused(run, "train", *SMALL, "--losses", "out.csv")
    finally:
        run.folder.chmod(0o755)
