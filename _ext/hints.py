"""Definitions where a reader needs them: the glossary's terms, marked in the chapters.

The first time that a chapter's text uses a term, the word becomes a link to the
glossary that shows the definition under the pointer or the keyboard's focus. Headings,
links, code, formulas, captions and tables stay as they are; so does the printed book.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

GLOSSARY = "glossary"
EVERYDAY = {"aggregate", "contract", "distribute", "value"}  # mostly no terms
PLURAL_ONLY = {"head", "key"}  # "every head" may be anyone's, "heads" are attention's
# a chapter's card, the legends of figures, and what is folded
APART = {"contract", "legend", "solution", "dropdown", "sd-dropdown"}
QUIET = (
    nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.math,
    nodes.math_block, nodes.caption, nodes.table, nodes.block_quote, nodes.figure,
)  # fmt: skip


class marked_term(nodes.Inline, nodes.TextElement):
    """A marked word, which leads to its entry."""


class hint_text(nodes.Inline, nodes.TextElement):
    """The definition of the marked word before it."""


def word_pattern(term):
    """A regular expression for a term: proper names as they are, plurals too."""
    if term in PLURAL_ONLY:
        form = re.escape(term) + "s"
    elif term.endswith("y"):
        form = re.escape(term[:-1]) + "(?:y|ies)"
    else:
        form = re.escape(term) + "(?:s|es)?"
    form = rf"(?<![\w-]){form}(?![\w-])"
    return form if term != term.lower() else f"(?i:{form})"


def read_glossary(doctree):
    """The glossary's entries, each with a pattern for its words; long words first."""
    found = []
    for entry in doctree.findall(nodes.definition_list_item):
        terms = {*next(entry.findall(nodes.term)).astext().split(", ")} - EVERYDAY
        found += [(terms, entry)] if terms else []
    found.sort(key=lambda pair: -max(map(len, pair[0])))
    return {
        entry: re.compile("|".join(word_pattern(term) for term in sorted(terms)))
        for terms, entry in found
    }


def definition(entry):
    """What an entry says, without the "See chapter" at its end."""
    paragraph, said = next(entry.findall(nodes.paragraph)).deepcopy(), []
    for child in paragraph.children:
        if isinstance(child, addnodes.pending_xref):
            said[-1] = nodes.Text(said[-1].removesuffix("See ").rstrip())
            break
        said.append(child)
    return said


class MarkTerms(SphinxPostTransform):
    """Mark the first use of each term in a chapter."""

    default_priority = 20  # when links are links
    builders = ("html",)

    def run(self, **kwargs):
        if not self.env.docname.startswith("chapters/"):
            return
        self.left = read_glossary(self.env.get_doctree(GLOSSARY))
        for text in list(self.document.findall(nodes.Text)):
            paragraph = open_paragraph(text)
            if paragraph is not None and self.mark(text):
                paragraph["classes"] = [*paragraph["classes"], "has-hint"]

    def mark(self, text):
        """Mark the words of a text that are terms, each entry once; whether any was."""
        pieces = [text]
        for entry, pattern in list(self.left.items()):
            for i, piece in enumerate(pieces):
                match = isinstance(piece, nodes.Text) and pattern.search(piece)
                if match:
                    before, after = piece[: match.start()], piece[match.end() :]
                    hint = self.make_hint(match[0], entry)
                    pieces[i : i + 1] = nodes.Text(before), *hint, nodes.Text(after)
                    del self.left[entry]
                    break
        text.parent.replace(text, pieces)
        return len(pieces) > 1

    def make_hint(self, word, entry):
        """The marked word and its definition."""
        anchor = next(entry.findall(nodes.term))["ids"][0]
        page = self.app.builder.get_relative_uri(self.env.docname, GLOSSARY)
        name = f"hint-{anchor}"
        yield marked_term("", word, refuri=f"{page}#{anchor}", describedby=name)
        yield hint_text("", "", *definition(entry), ids=[name])


def open_paragraph(text):
    """The paragraph in which a text may be marked; None where it must stay as it is."""
    node, paragraph = text.parent, None
    while node is not None:
        if isinstance(node, QUIET) or APART & {*node.get("classes", [])}:
            return None
        if paragraph is None and isinstance(node, nodes.paragraph):
            paragraph = node
        node = node.parent
    return paragraph


def visit_hint(translator, node):
    address, name = map(translator.attval, (node["refuri"], node["describedby"]))
    translator.body.append(
        f'<a class="hint" href="{address}" aria-describedby="{name}">'
    )


def depart_hint(translator, node):
    translator.body.append("</a>")


def visit_hint_text(translator, node):
    name = node["ids"][0]
    translator.body.append(f'<span class="hint-text" role="tooltip" id="{name}">')


def depart_hint_text(translator, node):
    translator.body.append("</span>")


def setup(app):
    app.add_node(marked_term, html=(visit_hint, depart_hint))
    app.add_node(hint_text, html=(visit_hint_text, depart_hint_text))
    app.add_post_transform(MarkTerms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
