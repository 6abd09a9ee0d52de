"""The whole benchmark: check, race, write the figures' data.

python -m benchmarks [--quick] [--only PART ...] [--contenders NAME ...]
"""

import argparse
import datetime
import json
import os
import sys
import time
from pathlib import Path

from . import (
    attention,
    cold_start,
    ideas,
    length,
    machine,
    race,
    races,
    roofline,
    sampling,
    scaling,
)
from .pipes import WorkerError

RESULTS = Path(__file__).parent / "results"
DRAFTS = RESULTS.parent.parent / "_build" / "benchmarks"  # of runs that are not whole
FORMAT = 1  # of the JSON file; raise it when a field changes its meaning

PARTS = {  # name: how it is measured, how it is told
    "check": (lambda plan: race.check(plan.names), race.check_table),
    "races": (races.measure, races.table),
    "attention": (
        lambda plan: attention.measure(plan.quick, plan.threads),
        attention.table,
    ),
    "avx2": (lambda plan: attention.measure_avx2(plan.quick), attention.table_avx2),
    "ideas": (lambda plan: ideas.measure(plan.quick), ideas.table),
    "sampling": (lambda plan: sampling.measure(plan.quick), sampling.table),
    "cold_start": (lambda plan: cold_start.measure(plan.quick), cold_start.table),
    "scaling": (lambda plan: scaling.measure(plan.quick, plan.threads), scaling.table),
    "length": (lambda plan: length.measure(plan.quick), length.table),
    "roofline": (lambda plan: roofline.measure(plan.threads), roofline.table),
}


def parse(argv) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="a smoke test, minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="P")
    help_ = "folder (default: benchmarks/results, _build/benchmarks if not whole)"
    parser.add_argument("--out", type=Path, help=help_)
    help_ = "contenders of the check and the first race, such as book_f32"
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help=help_)
    args = parser.parse_args(argv)
    whole = args.only is PARTS and not (args.quick or args.contenders)
    args.out = args.out or (RESULTS if whole else DRAFTS)
    return args


def take(plan: races.Plan, parts) -> dict:
    """Measure the parts one after the other and tell each; a failure stays its own."""
    result = {}
    for part in parts:
        measure, table = PARTS[part]
        print(f"\n== {part}, {time.strftime('%H:%M:%S')}", flush=True)
        try:
            result[part] = measure(plan)
            print(table(result[part]), flush=True)
        except WorkerError as error:
            result[part] = {"error": str(error)}
            print(f"  FAILED: {error}", flush=True)
        if part == "check" and "rows" in result[part]:
            plan = plan.without(result[part])
    return result


def write(result: dict, folder: Path) -> Path:
    """Write the result under its date and machine, and again as latest.json."""
    folder.mkdir(parents=True, exist_ok=True)
    name = machine.slug(result["machine"]["processor"])
    path = folder / f"{result['date'][:10]}-{name}.json"
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    for target in (path, folder / "latest.json"):
        partial = target.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    return path


def main(argv=None) -> int:
    """Run the benchmark; 2 for bad input, 1 when something failed or differs."""
    args = parse(argv)
    try:
        plan = races.plan(args.contenders, args.quick)
    except ValueError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    if not args.quick:  # compile anew, so that the time of compiling is measured
        os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    about = {"format": FORMAT, "date": date, "quick": args.quick}
    result = about | {"machine": machine.describe()}
    print(f"{result['machine']['processor']}, {plan.threads} core(s)")
    result |= take(plan, args.only)
    print(f"\nWritten: {write(result, args.out)} and latest.json beside it")
    checked = result.get("check", {}).get("rows", {}).values()
    failed = any("error" in result[part] for part in args.only)
    return int(failed or not all(row["same"] for row in checked))


if __name__ == "__main__":
    sys.exit(main())
