"""Give each chapter the first cell that Colab needs, or take it away again.

    python tools/colab_cells.py

Colab opens a notebook alone, without the book around it. If `repository.url` of
`_config.yml` names the book's public address, every notebook begins with a cell that
fetches the book there and does nothing elsewhere; without an address it has no such
cell. The cell is not rendered.
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
    !git clone -q --depth 1 {url} /content/book
    %pip install -q /content/book
    %cd -q /content/book/chapters"""


def shift(cells, by):
    """Renumber executed cells, so that the counts of a notebook begin with 1."""
    for cell in cells:
        if cell.cell_type == "code":
            cell.execution_count += by
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count += by


def update(path, url):
    """Put the cell at the head of a notebook, or remove it if `url` is empty."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.id != ID]
    shift(cells, len(cells) - len(notebook.cells))
    if url:
        shift(cells, 1)
        source, tags = SOURCE.format(url=url), {"tags": ["remove-cell"]}
        first = new_code_cell(source, id=ID, execution_count=1, metadata=tags)
        cells.insert(0, first)
    notebook.cells = cells
    nbformat.write(notebook, path)


if __name__ == "__main__":
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        update(path, config["repository"]["url"])
