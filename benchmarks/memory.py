"""How much memory a call takes at most, as the operating system sees it."""

import gc
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def status(field: str) -> int:
    """A field of the process's status in bytes, such as VmRSS."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"no {field} in {STATUS}")


class Peak:
    """Context: afterwards `bytes` is the highest resident size less the one before.

    On Linux the system's high-water mark is reset first; elsewhere it cannot be, and
    what was allocated and freed before the call hides a part (`method` says which).
    """

    def __enter__(self):
        gc.collect()
        try:
            RESET.write_text("5")
            self.before, self.method = status("VmRSS"), "high-water mark, reset"
        except OSError:
            self.before, self.method = high_water(), "high-water mark, not reset"
        return self

    def __exit__(self, *_):
        reset = self.method.endswith(", reset")
        after = status("VmHWM") if reset else high_water()
        self.bytes = after - self.before


def high_water() -> int:
    """The highest resident size since the process began, in bytes."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
