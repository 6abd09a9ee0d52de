"""The trained model, at work in a page.

    :::{live-model}
    What stands here is read where scripts do not run.
    :::

The build trains the model as chapter 10 does and writes its weights beside the scripts
of `_static/live/`, which only pages with the directive load.
"""

import base64
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

SCRIPTS = ("random.js", "model.js", "draw.js", "view.js")  # each uses those before it


class LiveModel(SphinxDirective):
    """A place for the model; `:open:` shows attention and streams from the start."""

    has_content = True
    option_spec: ClassVar = {"open": directives.flag}

    def run(self):
        self.assert_has_content()
        kind = ["live-open"] if "open" in self.options else []
        place = nodes.container(classes=["live-model", *kind])
        place += self.parse_content_to_nodes()
        return [place]


def keep_off_other_pages(app, config):
    """Undo Jupyter Book's habit of loading whatever lies in _static on every page."""
    for name in ("html_js_files", "html_css_files"):
        files = [x for x in config[name] if not str(x).startswith("live/")]
        setattr(config, name, files)


def load_scripts(app, page, template, context, doctree):
    """Have a page with a live model load its scripts and style sheet."""
    places = doctree.findall(nodes.container) if doctree else ()
    if any("live-model" in place["classes"] for place in places):
        app.add_css_file("live/live.css")
        for name in SCRIPTS:
            app.add_js_file(f"live/{name}", loading_method="defer")


def write_weights(app, exception):
    """Train, then write the weights: a file for Python, the same as a script for pages.

    A page that was opened from disk may fetch no file, but it may load a script.
    """
    if exception or app.builder.format != "html":
        return
    import microgpt  # not needed before

    corpus = microgpt.load_corpus(Path(app.srcdir, "input.txt"))
    model = microgpt.GPT(microgpt.GPTConfig(corpus.size), corpus.rng)
    microgpt.train(model, corpus)
    weights = Path(app.outdir, "_static/live/names.safetensors")
    microgpt.save_model(weights, model, corpus)
    weights.chmod(0o644)  # the library lets nobody else read it
    text = base64.b64encode(weights.read_bytes()).decode()
    script = f'live.weights = "{text}";\n'
    weights.with_name("weights.js").write_text(script, "utf-8")


def setup(app):
    app.add_directive("live-model", LiveModel)
    app.connect("config-inited", keep_off_other_pages)
    app.connect("html-page-context", load_scripts)
    app.connect("build-finished", write_weights)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
