"""Sphinx directive for the interactive explorers, the book's islands.

    :::{island} birkhoff
    What stands here is read where scripts do not run: in Jupyter, in print.
    :::

The script `_static/islands/birkhoff.js` takes the place of the text. Pages without an
island load nothing of this.
"""

from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

SCRIPTS = Path(__file__).parent.parent / "_static" / "islands"
FILM = "training-film"


class island(nodes.General, nodes.Element):
    """An explorer's place on a page; its children are the text without scripts."""


class IslandDirective(SphinxDirective):
    """The directive `island` with the name of a script and the text without it."""

    required_arguments = 1
    has_content = True

    def run(self):
        name = self.arguments[0]
        if not (SCRIPTS / f"{name}.js").is_file():
            raise self.error(
                f"no island '{name}': there is no {SCRIPTS.name}/{name}.js"
            )
        self.assert_has_content()
        node = island(name=name)
        self.state.nested_parse(self.content, self.content_offset, node)
        return [node]


def visit_html(translator, node):
    """Open the island's place; its text is marked, so that a script can hide it."""
    attributes = {"CLASS": "island", "data-island": node["name"]}
    translator.body.append(translator.starttag(node, "div", "", **attributes))
    translator.body.append('<div class="island-text">')


def depart_html(translator, node):
    translator.body.append("</div></div>\n")


def keep_off_other_pages(app, config):
    """Undo Jupyter Book's habit of loading whatever lies in _static on every page."""
    for name in ("html_js_files", "html_css_files"):
        files = [x for x in config[name] if not str(x).startswith("islands")]
        setattr(config, name, files)


def load_scripts(app, page, template, context, doctree):
    """Have a page load the scripts of its islands; most pages have none.

    They are plain scripts, not modules: browsers load no modules from a file:// page.
    """
    names = {node["name"] for node in doctree.findall(island)} if doctree else set()
    if not names:
        return
    app.add_css_file("islands.css")
    data = [write_film(Path(app.srcdir), Path(app.outdir))] if FILM in names else []
    for name in ["common", *data, *sorted(names)]:
        app.add_js_file(f"islands/{name}.js", loading_method="defer")


def write_film(source, target):
    """Train for the film and write its data into the built book; returns its name."""
    import film  # takes a while, and only one page needs it

    name = f"{FILM}-data"
    script = target / "_static" / "islands" / f"{name}.js"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(film.script(source / "input.txt"), encoding="utf-8")
    return name


def setup(app):
    app.add_node(island, html=(visit_html, depart_html))
    app.add_directive("island", IslandDirective)
    app.connect("config-inited", keep_off_other_pages)
    app.connect("html-page-context", load_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
