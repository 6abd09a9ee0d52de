"""What the build reads from docstrings, the glossary and figures, without a browser."""

import ast
import re

import numpy as np
import pytest
from cards import read_cell, shapes_in
from docutils import nodes
from figures import on_dark
from first_paint import lighten
from hints import definition, word_pattern
from PIL import Image
from sphinx.addnodes import pending_xref

DOCSTRINGS = {
    "x, y: (C x T), two; r: (T,), kept.": "x C×T, y C×T, r T",
    "out += a b, a (m x n), b (n x p), out (m x p).": "a m×n, b n×p, out m×p",
    "dx = dy where x > 0; all (m x n).": "dy m×n, x m×n, dx m×n",
    "z, y (C x T). Chapter 7.": "z C×T, y C×T",
    "Returns dq, dk, each (C x N), of one type.": "dq C×N, dk C×N",
    "From do (C x N), p (N keys x N queries).": "do C×N, p N keys×N queries",
    "Nothing of what (this x that) is stated of e (x).": "",
}


@pytest.mark.parametrize("text", DOCSTRINGS)
def test_shapes_are_read_from_docstrings(text):
    stated = DOCSTRINGS[text]
    names = [shape.split()[0] for shape in stated.split(", ") if shape]
    given = [name for name in names if name not in ("dq", "dk")]  # these it makes
    code = f'def f({", ".join(given)}):\n    """{text}"""\n    dq = dk = 0'
    found = shapes_in(ast.parse(code).body[0])
    shapes = [f"{name} {shape.replace(' × ', '×')}" for name, shape in found]
    assert ", ".join(dict.fromkeys(shapes)) == stated


def test_a_card_names_each_equation_once():
    first = 'def f(x):\n    """:eq:`a`, :eq:`b`."""\n'
    cell = "#| export\n" + first + 'def g():\n    """:eq:`a`."""\n'
    assert read_cell(cell) == (["a", "b"], [])


@pytest.mark.parametrize(
    ("term", "text", "found"),
    [
        ("softmax", "Two Softmaxes", "Softmaxes"),
        ("query", "its queries", "queries"),
        ("tile", "a tile.", "tile"),
        ("Adam", "adam", None),
        ("tile", "tile-wise", None),
        ("head", "in the head", None),
        ("head", "four heads", "heads"),
    ],
)
def test_terms_are_found_as_they_are_written(term, text, found):
    match = re.search(word_pattern(term), text)
    assert (match and match[0]) == found


def test_a_definition_ends_before_its_pointer():
    entry = nodes.definition_list_item()
    entry += nodes.paragraph("", "", nodes.Text("A part. See "), pending_xref())
    assert [str(piece) for piece in definition(entry)] == ["A part."]


def test_dark_figures_keep_hues_and_maps():
    page = np.full((220, 220, 3), 255, np.uint8)
    page[10:12, :] = 0  # a black line
    page[20:22, :] = [0, 114, 178]  # a blue one
    line = np.asarray(on_dark(Image.fromarray(page)))
    assert line[0, 0, 3] == 0, "white is transparent"
    assert line[10, 0].min() > 200, "black becomes light"
    red, _, blue, alpha = line[20, 0].astype(int)
    assert blue > red + 100 and alpha == 255
    page[60:160, 60:160] = [0, 32, 77]
    page[100:110, 100:110] = 255  # a white number in a cell
    dark = np.asarray(on_dark(Image.fromarray(page)))
    assert dark[70, 70].tolist() == [0, 32, 77, 255]
    assert dark[105, 105].tolist() == [255, 255, 255, 255]
    assert dark[10, 0].min() > 200


def test_a_page_waits_for_one_style_sheet_and_no_script(tmp_path):
    text = (
        '<link rel="stylesheet" href="a.css?v=1" /><title>T</title>'
        '<link href="b.css" rel="stylesheet" /><script src="c.js"></script>'
        '<script async="async" src="d.js"></script><script>let e;</script>'
    )
    asked = []

    def bundle(paths):
        asked.extend(path.name for path in paths)
        return tmp_path / "all.css"

    text = lighten(text, tmp_path / "page.html", bundle)
    assert asked == ["a.css", "b.css"]
    assert re.findall(r'rel="stylesheet" href="([^"]+)', text) == ["all.css"]
    assert '<script defer src="c.js">' in text
    assert '<script async="async" src="d.js">' in text and "<script>let e;" in text
