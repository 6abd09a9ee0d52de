"""Names a second, drawn by the book's model on one core after a short training."""

from .pipes import Client, WorkerError
from .summary import spread, summary

STEPS = 1000


def measure(quick: bool) -> dict:
    """Both dtypes, several rounds of the same names."""
    count, rounds = (50, 3) if quick else (300, 7)
    found = {"count": count, "rows": {}, "missing": {}}
    for name in ("book_f32", "book_f64"):
        try:
            found["rows"][name] = draw(name, count, rounds)
        except WorkerError as error:
            found["missing"][name] = str(error)
    return found


def draw(name: str, count: int, rounds: int) -> dict:
    """Rounds of `count` names from a model trained for STEPS steps."""
    with Client("benchmarks.worker", name) as client:
        client.run(steps=STEPS)
        runs = [client.sample(count=count) for _ in range(rounds)]
    rates = [count / run["seconds"] for run in runs]
    return {"names_per_second": summary(rates), "first": runs[0]["names"][:5]}


def table(result: dict) -> str:
    """The results as lines of text."""
    lines = ["Sampling: names a second, median (range)"]
    for name, row in result["rows"].items():
        rate = spread(row["names_per_second"], 0)
        lines.append(f"  {name:20} {rate:28} {', '.join(row['first'])}")
    missing = result["missing"].items()
    return "\n".join(lines + [f"  {name:20} MISSING, {why}" for name, why in missing])
