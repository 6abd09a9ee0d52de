"""Definitions where a reader needs them: the glossary's terms, marked in the chapters.

The first time that a chapter's text uses a term, the word becomes a link to the
glossary that shows the definition under the pointer or the keyboard's focus. Headings,
links, code, formulas, captions and tables stay as they are; so does the printed book.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

GLOSSARY = "glossary"
EVERYDAY = {"aggregate", "contract", "distribute", "value"}  # mostly no terms
PLURAL_ONLY = {"head", "key"}  # "every head" may be anyone's, "heads" are attention's
FOLDED = {
    "contract",
    "legend",
    "solution",
    "dropdown",
    "sd-dropdown",
}  # or a chapter's card
QUIET = (
    nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.math,
    nodes.math_block, nodes.caption, nodes.table, nodes.block_quote, nodes.figure,
)  # fmt: skip


class marked_term(nodes.Inline, nodes.TextElement):
    """A marked word; its last child is the definition."""


class hint_text(nodes.Inline, nodes.TextElement):
    """The definition of a marked word."""


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
    """Pairs (term, its entry) of the glossary, long terms first."""
    found = []
    for item in doctree.findall(nodes.definition_list_item):
        for word in next(item.findall(nodes.term)).astext().split(", "):
            found += [(word, item)] if word not in EVERYDAY else []
    return sorted(found, key=lambda pair: -len(pair[0]))


def definition(item):
    """What an entry says, without the "See chapter" at its end."""
    paragraph, said = next(item.findall(nodes.paragraph)).deepcopy(), []
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
        entries = read_glossary(self.env.get_doctree(GLOSSARY))
        self.left = [(re.compile(word_pattern(t)), item) for t, item in entries]
        for text in list(self.document.findall(nodes.Text)):
            if self.may_be_marked(text):
                self.mark(text)

    def may_be_marked(self, text):
        node, in_paragraph = text.parent, False
        while node is not None:
            if isinstance(node, QUIET) or FOLDED & {*node.get("classes", [])}:
                return False
            in_paragraph |= isinstance(node, nodes.paragraph)
            node = node.parent
        return in_paragraph

    def mark(self, text):
        """Replace the words of a text that are terms, each term once."""
        pieces = [text]
        for pattern, item in list(self.left):
            if (pattern, item) not in self.left:
                continue  # another word of its entry has been marked
            for i, piece in enumerate(pieces):
                match = isinstance(piece, nodes.Text) and pattern.search(piece)
                if match:
                    before, after = piece[: match.start()], piece[match.end() :]
                    word = self.make_hint(match[0], item)
                    pieces[i : i + 1] = nodes.Text(before), word, nodes.Text(after)
                    self.left = [pair for pair in self.left if pair[1] is not item]
                    break
        if len(pieces) > 1:
            paragraph = text.parent
            text.parent.replace(text, pieces)
            while not isinstance(paragraph, nodes.paragraph):
                paragraph = paragraph.parent
            paragraph["classes"] = [*paragraph["classes"], "has-hint"]

    def make_hint(self, word, item):
        anchor = next(item.findall(nodes.term))["ids"][0]
        link = make_refnode(
            self.app.builder, self.env.docname, GLOSSARY, anchor, nodes.Text(word)
        )
        note = hint_text("", "", *definition(item), ids=[f"hint-{anchor}"])
        return marked_term("", nodes.Text(word), note, refuri=link["refuri"])


def visit_hint(translator, node):
    address = translator.attval(node["refuri"])
    name = node[-1]["ids"][0]
    translator.body.append(
        f'<a class="hint" href="{address}" aria-describedby="{name}">'
    )


def depart_hint(translator, node):
    """The link was closed before the definition."""


def visit_hint_text(translator, node):
    name = node["ids"][0]
    translator.body.append(f'</a><span class="hint-text" role="tooltip" id="{name}">')


def depart_hint_text(translator, node):
    translator.body.append("</span>")


def setup(app):
    app.add_node(marked_term, html=(visit_hint, depart_hint))
    app.add_node(hint_text, html=(visit_hint_text, depart_hint_text))
    app.add_post_transform(MarkTerms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
