"""The single page that `make pdf` prints: all chapters in one, and every link right."""

import re

from sphinx.builders.singlehtml import SingleFileHTMLBuilder

START = re.compile(r'(?=<span id="document-[^"]+"></span>)')
LINK = re.compile(r'(<a [^>]*?href=")#([^"#]+)(?:#([^"]+))?"')


class OnePageBuilder(SingleFileHTMLBuilder):
    """Sphinx's single page, with links that still say which document they mean.

    Sections of several chapters have one name, "Why" for instance, and so one id.
    Sphinx drops the document from links to them; here they stay `#document-NAME#ID`
    until `distinct_ids` has told the ids apart.
    """

    def fix_refuris(self, tree):
        pass


def share_handlers(app):
    """Draw the nodes of all extensions on the single page as on the others.

    Sphinx looks for a builder's own handlers first, and forgets those for HTML as soon
    as one extension has registered some for this builder.
    """
    handlers = app.registry.translation_handlers
    handlers["singlehtml"] = handlers["html"] | handlers.get("singlehtml", {})


def distinct_ids(body):
    """Prefix ids that links lead to, and the links, by the document they stand in."""
    pieces = [
        ((re.match(r'<span id="([^"]+)"', piece) or ["", "document-index"])[1], piece)
        for piece in START.split(body)
    ]
    documents, targets = {document for document, _ in pieces}, set()

    def change_link(document, match):
        head, place, fragment = match.groups()
        if fragment is None and place in documents:
            return match[0]
        goal = (place, fragment) if fragment else (document, place)
        targets.add(goal)
        return f'{head}#{"--".join(goal)}"'

    def change_id(document, match):
        goal = document, match[1]
        return f' id="{"--".join(goal)}"' if goal in targets else match[0]

    for change, pattern in (
        (change_link, LINK),
        (change_id, re.compile(r' id="(\S+)"')),
    ):
        pieces = [
            (document, pattern.sub(lambda m, d=document, c=change: c(d, m), text))
            for document, text in pieces
        ]
    return "".join(text for _, text in pieces)


def mend_links(app, page, template, context, doctree):
    """Apply `distinct_ids` to the single page."""
    if app.builder.name == "singlehtml" and context.get("body"):
        context["body"] = distinct_ids(context["body"])


def setup(app):
    app.add_builder(OnePageBuilder, override=True)
    app.connect("builder-inited", share_handlers)
    app.connect("html-page-context", mend_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
