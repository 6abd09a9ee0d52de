"""Give each chapter the first cell that Colab needs, with the book's public address.

    python tools/colab_cells.py

Colab opens a notebook alone, without the book around it. The first cell of every
notebook fetches the book there, from the `repository.url` of `_config.yml`; elsewhere
it does nothing. It is not rendered. Run this when the address has changed.
"""

from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).parent.parent
ID = "colab"
SOURCE = """\
import sys

if "google.colab" in sys.modules:  # Colab has opened this notebook alone
    BOOK = "{url}"  # repository.url of _config.yml
    assert BOOK, "this book has no public address yet to fetch it from"
    !git clone -q --depth 1 {{BOOK}} /content/book
    %pip install -q /content/book
    %cd -q /content/book/chapters"""


def shift(cells):
    """Renumber executed cells: one more has been run before them."""
    for cell in cells:
        if cell.cell_type == "code":
            cell.execution_count += 1
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count += 1


def update(path, url):
    """Put the cell at the head of a notebook, in place of the one that is there."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.id != ID]
    if len(cells) == len(notebook.cells):
        shift(cells)
    hidden = {"jupyter": {"source_hidden": True}, "tags": ["remove-cell"]}
    source = SOURCE.format(url=url)
    first = new_code_cell(source, id=ID, execution_count=1, metadata=hidden)
    notebook.cells = [first, *cells]
    nbformat.write(notebook, path)


if __name__ == "__main__":
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        update(path, config["repository"]["url"])
