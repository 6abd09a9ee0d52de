"""The shortest time of an action, on a machine that does other things as well."""

import timeit


def seconds(action, rounds: int = 50, least: float = 1e-3) -> float:
    """The shortest of many short rounds: some fall between what else the machine does.

    A round repeats `action` until it lasts `least` seconds.
    """
    action()
    timer, times = timeit.Timer(action), 1
    while (took := timer.timeit(times)) < least:
        times *= 4
    return min([took, *timer.repeat(rounds - 1, times)]) / times
