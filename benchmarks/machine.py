"""What the figures were measured on."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

PACKAGES = ("numpy", "numba", "llvmlite", "torch", "jax", "jaxlib")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def processor() -> str:
    """The processor's name."""
    try:
        info = Path("/proc/cpuinfo").read_text()
        return re.search(r"^model name\s*:\s*(.*)$", info, re.MULTILINE)[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def caches() -> dict[str, int]:
    """Bytes of the data caches, "L1", "L2", "L3"; a guess where they are not told."""
    found = {}
    for folder in sorted(CACHES.glob("index*")):
        kind, level, size = (
            (folder / name).read_text().strip() for name in ("type", "level", "size")
        )
        if kind != "Instruction":
            unit = {"K": 1 << 10, "M": 1 << 20}.get(size[-1], 1)
            found[f"L{level}"] = int(size.rstrip("KM")) * unit
    return found or {"L1": 32 << 10, "L2": 512 << 10, "L3": 8 << 20}


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe() -> dict:
    """Processor, cores, caches, system and the versions that matter."""
    return {
        "processor": processor(),
        "cores": cores(),
        "caches": caches(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def slug(name: str) -> str:
    """A name fit for a file: lower case, hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "machine"
