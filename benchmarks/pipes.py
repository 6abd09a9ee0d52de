"""A worker process that obeys lines of JSON, seen from both ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

from . import environment

ROOT = Path(__file__).parent.parent


class WorkerError(Exception):
    """What a worker answered instead of a result, in one line."""


def in_one_line(error: BaseException) -> str:
    """The kind of an error and the first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])


def answer(action) -> dict:
    """The result of `action`, or the error as a result."""
    try:
        return action() or {}
    except Exception as error:  # the driver reports it and goes on with the others
        return {"error": in_one_line(error)}


def serve(make) -> None:
    """Obey: a line of JSON for each command on standard input, one for each answer.

    A command names a method of what `make` returns and its arguments. Whatever a
    library prints goes to standard error and so cannot disturb the answers.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    made = []
    print(json.dumps(answer(lambda: made.append(make()))), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        method = getattr(made[0], command.pop("do"))
        print(json.dumps(answer(lambda: method(**command))), file=answers, flush=True)  # noqa: B023


class Client:
    """A worker started with `python -m MODULE ARGUMENTS --serve`, its threads limited.

    Call its commands as methods. Raises WorkerError, in one line, when it cannot
    start, fails or dies.
    """

    def __init__(self, module: str, *arguments: str, threads: int = 1):
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | environment.variables(threads),
            text=True,
            cwd=ROOT,
        )
        self.started = False

    def receive(self) -> dict:
        """The next answer."""
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"it ended with exit code {self.process.wait()}")
        result = json.loads(line)
        if "error" in result:
            raise WorkerError(result["error"])
        return result

    def wait(self) -> None:
        """Wait until the worker has started; nothing more after the first time."""
        if not self.started:
            self.started = True
            self.receive()

    def __getattr__(self, command: str):
        def call(**arguments) -> dict:
            self.wait()
            try:
                print(json.dumps({"do": command} | arguments), file=self.process.stdin)
                self.process.stdin.flush()
            except BrokenPipeError:
                raise WorkerError("it has ended") from None
            return self.receive()

        return call

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
