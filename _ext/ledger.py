"""The equation ledger: each result with the code and the checks that rest on it.

`<!-- ledger -->` in `ledger.md` is replaced by its tables. A result without a check,
and a citation of an equation that does not exist, are warnings, which end the build.
"""

from itertools import groupby
from operator import attrgetter

from badges import cell_label
from equations import read_equations
from sphinx.util import logging

MARK = "<!-- ledger -->"
logger = logging.getLogger(__name__)


def implementation(equation):
    """Markdown: the functions of the package that cite the equation, or its cells."""
    if equation.functions:
        return ", ".join(f"{{py:obj}}`~{name}`" for name in equation.functions)
    places = dict.fromkeys(cell.place for cell in equation.cells)
    return cells(equation.document, list(places)[:1])


def cells(document, places):
    """Markdown: links to cells; those of another chapter are named with it."""
    words = []
    for place in places:
        chapter = place.document.rpartition("/")[2]
        text = f"cell {place.count}"
        if place.document != document:
            text = f"chapter {int(chapter[:2])}, {text}"
        words.append(f"{{ref}}`{text} <{cell_label(chapter, place.cell)}>`")
    return ", ".join(words)


def checks(equation, tests):
    """Markdown: the cells and tests that check the equation."""
    found = [cells(equation.document, equation.checks)] if equation.checks else []
    for test in equation.tests:
        file, _, name = test.partition("::")
        found.append(f"[`{name}`]({tests}/{file})" if tests else f"`{name}`")
    return ", ".join(found)


def write_ledger(equations, tests=""):
    """The page's tables in Markdown, and how much they hold.

    `tests`: the address of the repository's files, to link the tests with.
    """
    results = [e for e in equations.values() if e.is_result]
    lines = [
        f"The book numbers {len(equations)} equations. {len(results)} of them are "
        f"results, and each of these is checked; functions of the package implement "
        f"{sum(bool(e.functions) for e in results)}, cells of the chapters the others."
    ]
    for document, group in groupby(equations.values(), attrgetter("document")):
        group = list(group)
        number = int(document.rpartition("/")[2][:2])
        lines += ["", f"## Chapter {number}", "", f"{{doc}}`{document}`", ""]
        lines += ["| equation | name | code | checked by |", "|---|---|---|---|"]
        lines += [
            f"| {{eq}}`{e.label}` | {e.label.partition('-')[2].replace('-', ' ')} "
            f"| {implementation(e)} | {checks(e, tests)} |"
            for e in group
            if e.is_result
        ]
        others = [f"{{eq}}`{e.label}`" for e in group if not e.is_result]
        if others:
            lines += ["", f"Definitions and steps: {', '.join(others)}."]
    return "\n".join(lines)


def fill_page(app, docname, source):
    """Write the tables into the page that has a mark for them; report what is wrong."""
    if MARK not in source[0]:
        return
    equations, problems = read_equations(app.srcdir)
    for problem in problems:
        logger.warning(problem, location=docname, type="book", subtype="ledger")
    html = app.config.html_theme_options
    tests = ""
    if html.get("repository_url"):
        branch = html.get("repository_branch") or "main"
        tests = f"{html['repository_url']}/blob/{branch}"
    source[0] = source[0].replace(MARK, write_ledger(equations, tests))


def compare_with_sphinx(app, env):
    """No equation that Sphinx numbered in a chapter may be missing from the ledger."""
    known = read_equations(app.srcdir)[0]
    for label, (docname, _) in env.get_domain("math").equations.items():
        if docname.startswith("chapters/") and label not in known:
            logger.warning(
                f"the ledger does not see the equation {label}",
                location=docname, type="book", subtype="ledger",
            )  # fmt: skip


def setup(app):
    app.setup_extension("badges")
    app.connect("source-read", fill_page)
    app.connect("env-check-consistency", compare_with_sphinx)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
