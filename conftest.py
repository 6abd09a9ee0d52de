"""Every test and every notebook kernel starts from the same settings."""

import os

import records

os.environ["TQDM_DISABLE"] = "1"  # progress bars would be output to compare
os.environ["PYTHON_COLORS"] = "0"  # from 3.13 on Python colours its tracebacks
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")

outcomes = []


def pytest_runtest_logreport(report):
    """Collect how each check went, for the book's status page."""
    if report.when == "call" or report.outcome != "passed":
        outcomes.append((report.nodeid.partition("::")[0], report.outcome))


def pytest_sessionfinish(session, exitstatus):
    """Record it, unless only some checks of a file were wanted or the run broke off."""
    options, worker = session.config.option, hasattr(session.config, "workerinput")
    chosen = options.keyword or options.markexpr or "::" in "".join(session.config.args)
    if not worker and not chosen and not session.shouldfail and exitstatus in (0, 1):
        records.record_checks(session.config.rootpath, outcomes)
