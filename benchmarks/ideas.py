"""What each idea is worth: the book as it is, and with one of its ideas taken away."""

from contextlib import ExitStack

from . import contenders
from .attention import gflops, in_turns, milliseconds, worker
from .race import Race, each, missing_lines, run
from .summary import ratio, spread
from .variants import VARIANTS

BOOK = "book_f32"
QUICK = ("aliasing", "loose")
IN_ATTENTION = ("aliasing", "exp", "panels", "loose", "avx2")  # others hardly matter
N, D = 1024, 16


def names(quick: bool) -> tuple[str, ...]:
    """The contenders: the book, and the variants."""
    chosen = QUICK if quick else VARIANTS
    return (BOOK, *(f"book-{key}_f32" for key in chosen))


def attention(quick: bool) -> dict:
    """Forward and backward pass of attention with the ideas that matter to it."""
    rounds, failed = 3 if quick else 7, {}
    chosen = [key for key in IN_ATTENTION if not quick or key in QUICK]
    with ExitStack() as stack:
        clients = {"book": stack.enter_context(worker("book"))}
        for key in chosen:
            clients[key] = stack.enter_context(worker("book", variant=key))
        each(clients, failed, lambda name, c: c.wait())
        each(clients, failed, lambda name, c: c.load(n=N, d=D))
        seconds = in_turns(clients, "both", rounds, failed)
    rows = {}
    for key, s in seconds.items():
        rows[key] = {"milliseconds": milliseconds(s)}
        rows[key]["gflops"] = gflops(N, D, "both", s)
        rows[key]["times_the_book"] = ratio(s, seconds["book"])
    return {"n": N, "d": D, "rows": rows, "missing": failed}


def measure(quick: bool) -> dict:
    """A race of the seed model's training step, and one of attention."""
    steps, rounds = (200, 3) if quick else (1000, 7)
    step = run(Race("ideas", names(quick), {}, steps, rounds))
    words = {key: told for key, (_, told) in VARIANTS.items()}
    return {"words": words, "step": step, "attention": attention(quick)}


def table(result: dict) -> str:
    """The results as lines of text."""
    step, words = result["step"], result["words"]
    lines = ["Without an idea: microseconds a step, median (range), times the book"]
    for name, row in step["rows"].items():
        variant = contenders.entry(name)[0].variant
        line = f"  {words.get(variant, 'the book'):46} {spread(row['microseconds']):26}"
        lines.append(f"{line} {spread(row['times_the_book'])}")
    lines += missing_lines(step["missing"])
    found = result["attention"]
    lines.append(f"Attention, both passes, N {found['n']}, d {found['d']}: ms, ratio")
    for key, row in found["rows"].items():
        line = f"  {words.get(key, 'the book'):46} {spread(row['milliseconds']):26}"
        lines.append(f"{line} {spread(row['times_the_book'])}")
    return "\n".join(lines + missing_lines(found["missing"]))
