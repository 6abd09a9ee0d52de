"""Sphinx extension of this book.

Equations are drawn by a MathJax that is served with the book, exported cells carry a
badge that names their module, what accessibility checks find in the theme is mended,
and pages leave out scripts that they do not need.
"""

import re
import shutil
from importlib.metadata import distribution
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx import addnodes

MATHJAX = "sphinx-mathjax-offline"


def use_local_mathjax(app, config):
    """Point every page at the MathJax that `copy_mathjax` puts into _static."""
    config.mathjax_path = "mathjax/tex-mml-chtml.js"


def copy_mathjax(app, exception):
    """Copy the one MathJax component that pages load, and its fonts."""
    if exception or app.builder.format != "html":
        return
    package = Path(distribution(MATHJAX).locate_file(MATHJAX))
    source, target = package / "static/mathjax", Path(app.outdir, "_static/mathjax")
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(source / fonts, target / fonts, dirs_exist_ok=True)
    shutil.copy(source / "tex-mml-chtml.js", target)


def exported_module(path):
    """The module that a notebook names in its `#| default_exp` cell, or None."""
    if path.suffix != ".ipynb":
        return None
    for cell in nbformat.read(path, as_version=4).cells:
        found = re.match(r"#\| default_exp (\S+)", cell.source)
        if found:
            return found[1]
    return None


def badge_exported_cells(app, doctree):
    """Replace `#| export` at the head of a code cell by a badge naming the module."""
    module = exported_module(Path(app.env.doc2path(app.env.docname)))
    for block in list(doctree.findall(nodes.literal_block)):
        found = re.match(r"#\| exporti?(?: (\S+))?\n", block.astext())
        if not found:
            continue
        text = block.astext()[found.end() :]
        name = f"microgpt.{found[1] or module}".removesuffix(".__init__")
        label = f"microgpt/{found[1] or module}.py"
        link = addnodes.pending_xref(
            "", nodes.literal(label, label), refdomain="py", reftype="mod",
            reftarget=name, refwarn=False, refexplicit=True,
        )  # fmt: skip
        link["refdoc"] = app.env.docname
        badge = nodes.paragraph("", "", nodes.Text("exported to "), link)
        badge["classes"].append("export-badge")
        fresh = nodes.literal_block(text, text, **block.attributes)
        block.replace_self(fresh)
        fresh.parent.insert(fresh.parent.index(fresh), badge)


def drop_thebe(app, page, template, context, doctree):
    """Leave out the scripts of Thebe, which would load code from another host."""

    def is_thebe(script):
        attributes = getattr(script, "attributes", {})
        return "thebe" in f"{getattr(script, 'filename', '')}{attributes}".lower()

    context["script_files"] = [s for s in context["script_files"] if not is_thebe(s)]


def drop_mathjax(app, page, template, context, doctree):
    """Leave MathJax out of pages without equations; Sphinx counts those of subpages."""
    if not app.env.domaindata["math"]["has_equations"].get(page):
        name = app.config.mathjax_path
        context["script_files"] = [
            s for s in context["script_files"] if not (s.filename or "").endswith(name)
        ]


def lighten_pages(app, exception):
    """Show text before scripts run: the theme's pages make readers wait for two things.

    Its icons come twice, as a script of 1.6 MB and as a font: the font stays. The
    search index need not be there before the page is.
    """
    if exception or app.builder.format != "html":
        return
    icons = r'<script[^>]* src="[^"]*/fontawesome\.js[^"]*"></script>'
    search = r'<script (src="[^"]*(?:searchtools|language_data|searchindex)\.js)'
    for page in Path(app.outdir).rglob("*.html"):
        text = re.sub(icons, "", page.read_text(encoding="utf-8"))
        page.write_text(re.sub(search, r"<script defer \1", text), encoding="utf-8")


def mend_page(app, page, template, context, doctree):
    """Take out roles that bibliographies may not have, and Thebe's settings."""
    body = context.get("body")
    if not body:
        return
    body = re.sub(r' role="(list|doc-biblioentry|doc-backlink)"', "", body)
    context["body"] = re.sub(
        r'<script type="text/x-thebe-config">.*?</script>', "", body, flags=re.S
    )


def setup(app):
    app.connect("config-inited", use_local_mathjax)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", lighten_pages)
    app.connect("doctree-read", badge_exported_cells)
    app.connect("html-page-context", mend_page)
    app.connect("html-page-context", drop_thebe, priority=990)
    app.connect("html-page-context", drop_mathjax, priority=990)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
