"""Repeated measurements in three numbers, and ratios taken round by round."""

import statistics


def summary(values: list[float]) -> dict:
    """Median, least, greatest, and the values themselves."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": values,
    }


def ratio(values: list[float], base: list[float]) -> dict:
    """Summary of values / base, each pair from the same round."""
    return summary([x / y for x, y in zip(values, base, strict=True)])


def spread(s: dict, digits: int = 2) -> str:
    """A summary as text: median (min to max)."""
    return f"{s['median']:.{digits}f} ({s['min']:.{digits}f} to {s['max']:.{digits}f})"
