"""Run a command where there is no network: in a namespace that has no route."""

import functools
import shutil
import subprocess
import sys

NAMESPACE = ["unshare", "--map-root-user", "--net"]

# 192.0.2.1 is an address for documentation: with a route, this would wait or be refused
CONTROL = """
import errno, socket, sys
assert [name for _, name in socket.if_nameindex()] == ["lo"], socket.if_nameindex()
try:
    socket.create_connection(("192.0.2.1", 443), timeout=2)
except OSError as error:
    sys.exit(0 if error.errno == errno.ENETUNREACH else f"there is a network: {error}")
sys.exit("there is a network: connected")
"""


@functools.cache
def why_not() -> str:
    """Why this machine cannot make such a namespace; empty if it can."""
    if shutil.which("unshare") is None:
        return "no command unshare here"
    done = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True)
    return f"no network namespace here: {done.stderr}" if done.returncode else ""


def without_network(command: list) -> list:
    """The command that runs `command` without a network, where that can be had."""
    return [*map(str, command)] if why_not() else [*NAMESPACE, *map(str, command)]


def control() -> list:
    """A command that fails unless there is no way out of where it runs."""
    return [sys.executable, "-c", CONTROL]
