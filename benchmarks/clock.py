"""The shortest time of an action, on a machine that does other things as well."""

import time


def seconds(action, rounds: int = 50, least: float = 1e-3) -> float:
    """The shortest of many short rounds: some fall between what else the machine does.

    A round repeats `action` until it lasts `least` seconds.
    """
    action()
    times, took = 1, 0.0
    while took < least:
        began = time.perf_counter()
        for _ in range(times):
            action()
        took = time.perf_counter() - began
        times *= 1 if took >= least else 4
    best = took
    for _ in range(rounds - 1):
        began = time.perf_counter()
        for _ in range(times):
            action()
        best = min(best, time.perf_counter() - began)
    return best / times
