"""Sphinx extension of this book.

Equations are drawn by a MathJax that is served with the book, what accessibility
checks find in the theme is mended, and pages leave out scripts that they do not need.

The rest has modules of its own: `badges` links cells with the package, `cards` sets
equations beside code, `hints` marks the glossary's terms, `figures` draws for dark
pages, `ledger` lists the equations, `status` says what was run, `first_paint` lets
pages wait for little, and `printing` makes the single page of `make pdf`.
"""

import re
import shutil
from importlib.metadata import distribution
from pathlib import Path

MATHJAX = "sphinx-mathjax-offline"

INLINE = re.compile(
    r'[(“]?<span class="math notranslate nohighlight">[^<]*</span>[-,.;:?!)”’]*'
)


def use_local_mathjax(app, config):
    """Point every page at the MathJax that `copy_mathjax` puts into _static."""
    config.mathjax_path = "mathjax/tex-mml-chtml.js"


def hide_dead_buttons(app, config):
    """Show no launch buttons while the repository has no public address."""
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options["launch_buttons"] = {}


def copy_mathjax(app, exception):
    """Copy the one MathJax component that pages load, and its fonts."""
    if exception or app.builder.format != "html":
        return
    package = Path(distribution(MATHJAX).locate_file(MATHJAX))
    source, target = package / "static/mathjax", Path(app.outdir, "_static/mathjax")
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(source / fonts, target / fonts, dirs_exist_ok=True)
    shutil.copy(source / "tex-mml-chtml.js", target)


def drop_thebe(app, page, template, context, doctree):
    """Leave out the scripts of Thebe, which would load code from another host."""

    def is_thebe(script):
        attributes = getattr(script, "attributes", {})
        return "thebe" in f"{getattr(script, 'filename', '')}{attributes}".lower()

    context["script_files"] = [s for s in context["script_files"] if not is_thebe(s)]


def drop_mathjax(app, page, template, context, doctree):
    """Leave MathJax out of pages without equations; Sphinx counts those of subpages."""
    if app.builder.name == "singlehtml":
        return  # the one page has them all
    if not app.env.domaindata["math"]["has_equations"].get(page):
        name = app.config.mathjax_path
        context["script_files"] = [
            s for s in context["script_files"] if not (s.filename or "").endswith(name)
        ]


def mend_page(app, page, template, context, doctree):
    """Take out roles that bibliographies may not have, and Thebe's settings.

    Inline mathematics gets into one line with the brackets and commas that touch it.
    """
    body = context.get("body")
    if not body:
        return
    body = re.sub(r' role="(list|doc-biblioentry|doc-backlink)"', "", body)
    body = INLINE.sub(r'<span class="one-line">\g<0></span>', body)
    context["body"] = re.sub(
        r'<script type="text/x-thebe-config">.*?</script>', "", body, flags=re.S
    )


def setup(app):
    for extension in (
        "badges",
        "cards",
        "figures",
        "first_paint",
        "hints",
        "ledger",
        "printing",
        "status",
    ):
        app.setup_extension(extension)
    app.connect("config-inited", use_local_mathjax)
    app.connect("config-inited", hide_dead_buttons)
    app.connect("build-finished", copy_mathjax)
    app.connect("html-page-context", mend_page)
    app.connect("html-page-context", drop_thebe, priority=990)
    app.connect("html-page-context", drop_mathjax, priority=990)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
