"""Names a second, drawn by the book's model on one core after a short training."""

from .pipes import Client, WorkerError
from .summary import spread, summary

STEPS = 1000


def measure(quick: bool) -> dict:
    """Both dtypes, one by one and many at a time, several rounds of the same names."""
    few, many, rounds = (50, 1000, 3) if quick else (300, 10_000, 7)
    found = {"rows": {}, "missing": {}}
    for name in ("book_f32", "book_f64"):
        for way, count in (("one by one", few), ("many at a time", many)):
            try:
                row = draw(name, count, way == "many at a time", rounds)
                found["rows"][f"{name}, {way}"] = {"count": count} | row
            except WorkerError as error:
                found["missing"][f"{name}, {way}"] = str(error)
    return found


def draw(name: str, count: int, many: bool, rounds: int) -> dict:
    """Rounds of `count` names from a model trained for STEPS steps."""
    with Client("benchmarks.worker", name) as client:
        client.run(steps=STEPS)
        runs = [client.sample(count=count, many=many) for _ in range(rounds)]
    rates = [count / run["seconds"] for run in runs]
    return {"names_per_second": summary(rates), "first": runs[0]["names"][:5]}


def table(result: dict) -> str:
    """The results as lines of text."""
    lines = ["Sampling: names a second, median (range)"]
    for name, row in result["rows"].items():
        rate = spread(row["names_per_second"], 0)
        lines.append(f"  {name:26} {rate:28} {', '.join(row['first'])}")
    missing = result["missing"].items()
    return "\n".join(lines + [f"  {name:26} MISSING, {why}" for name, why in missing])
