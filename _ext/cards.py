"""Equation and code side by side.

A cell that exports functions whose docstrings cite equations gets a card: these
equations once more, each under the number that leads to where it is derived, and the
shapes of the arrays as the docstrings state them. On wide screens the card stands
beside the code, elsewhere it is folded above it; paper goes without.
"""

import ast
import re

from badges import code_cells, reference_to
from docutils import nodes
from equations import CITED_IN_DOCSTRING, EXPORT, Code, documented
from sphinx.transforms.post_transforms import SphinxPostTransform

SHAPE = r" ?\(([^():;.]*? x [^():;.]*|\w+,)\)"
NAMES = r"`?\w+`?(?:(?:, and |, | and )`?\w+`?)*"
COLON = re.compile(rf"({NAMES})(?::|, each){SHAPE}")
LISTED = re.compile(rf"(?:(?<=[;.?)] )|(?<=\), )|^)({NAMES}){SHAPE}")
SINGLE = re.compile(rf"(\w+)`?{SHAPE}")
ALL = re.compile(rf"\b(?:both|all){SHAPE}")


class equation_card(nodes.General, nodes.Element):
    """The card of a cell: its `shapes`, and its equations as children."""


class card_equation(nodes.General, nodes.Element):
    """One equation of a card: the link to it, then the equation."""


def shapes_in(function):
    """Pairs (name, shape) that a function's docstring states, in its order."""
    text = re.sub(r"\s+", " ", ast.get_docstring(function) or "")
    parts = list(ast.walk(function))
    arguments = [part.arg for part in parts if isinstance(part, ast.arg)]
    names = {part.id for part in parts if isinstance(part, ast.Name)} | {*arguments}
    stated = [
        (m.start(), re.findall(r"\w+", m[1]), m[2])
        for pattern in (COLON, LISTED)
        for m in pattern.finditer(text)
    ]
    stated += [(m.start(), [m[1]], m[2]) for m in SINGLE.finditer(text)]
    stated += [(m.start(), arguments, m[1]) for m in ALL.finditer(text)]
    return [
        (name, shape.rstrip(",").replace(" x ", " × "))
        for _, listed, shape in sorted(stated)
        for name in listed
        if name in names
    ]


def read_cell(source):
    """The labels that the docstrings of a cell cite, and the shapes they state."""
    labels, shapes = {}, {}
    for _, node in list(documented(Code(source).tree))[1:]:
        text = ast.get_docstring(node) or ""
        labels |= dict.fromkeys(CITED_IN_DOCSTRING.findall(text))
        shapes |= dict.fromkeys(shapes_in(node))
    return list(labels), list(shapes)


def add_cards(app, doctree):
    """Put a card into every exported cell that implements equations."""
    docname = app.env.docname
    for container, cell, _ in code_cells(app, doctree):
        exported = EXPORT.match(cell.source)
        labels, shapes = read_cell(cell.source) if exported else ([], [])
        if labels:
            card = equation_card(shapes=shapes)
            for label in labels:
                text = nodes.inline("", label)
                link = reference_to("math", "eq", label, text, docname)
                number = nodes.paragraph("", "", link)
                card += card_equation("", number, label=label)
            container.insert(0, card)
            container["classes"].append("with-card")


class FillCards(SphinxPostTransform):
    """Fetch the equations of the cards from the documents that derive them."""

    default_priority = 100  # when links are resolved

    def run(self, **kwargs):
        if self.app.builder.name == "singlehtml":
            for card in list(self.document.findall(equation_card)):
                card.parent["classes"].remove("with-card")
                card.parent.remove(card)
        known = self.env.get_domain("math").equations
        for place in list(self.document.findall(card_equation)):
            if place["label"] in known:  # others have been reported as links
                place += self.equation(place["label"], known[place["label"]][0])

    def equation(self, label, home):
        """A copy of an equation of the document `home`, without number and anchor."""
        same = home == self.env.docname
        document = self.document if same else self.env.get_doctree(home)
        blocks = document.findall(nodes.math_block)
        math = next(block for block in blocks if block.get("label") == label)
        text = math.astext()
        return nodes.math_block(
            text, text, nowrap=math.get("nowrap", False), number=None, label=None
        )


def summary(card):
    """What a folded card says of itself."""
    numbers = [place[0].astext().strip("()") for place in card]
    title = f"Equation{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
    return title + (" and shapes" if card["shapes"] else "")


def shape_list(shapes):
    """The column of shapes as HTML, arrays of one shape in one line."""
    lines = {}
    for name, shape in shapes:
        lines.setdefault(shape, []).append(name)
    rows = (
        f"<div><dt>{', '.join(f'<code>{name}</code>' for name in names)}</dt>"
        f"<dd>{shape}</dd></div>"
        for shape, names in lines.items()
    )
    return f'<dl class="card-shapes">{"".join(rows)}</dl>' if lines else ""


def visit_card(translator, node):
    translator.body.append(
        '<div class="equation-card"><details>'
        f"<summary>{summary(node)}</summary>"
        '<div class="card-body">'
    )


def depart_card(translator, node):
    translator.body.append(shape_list(node["shapes"]) + "</div></details></div>\n")


def visit_equation(translator, node):
    translator.body.append('<div class="card-equation">')


def depart_equation(translator, node):
    translator.body.append("</div>")


def setup(app):
    app.add_node(equation_card, html=(visit_card, depart_card))
    app.add_node(card_equation, html=(visit_equation, depart_equation))
    app.add_post_transform(FillCards)
    app.connect("doctree-read", add_cards, priority=600)  # when cells have badges
    return {"parallel_read_safe": True, "parallel_write_safe": True}
