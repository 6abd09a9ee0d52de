"""Links between a chapter's cells and the package, both ways.

An exported cell carries a badge: the functions that it defines lead to the package
reference, the module's name to its source. In the reference each function leads back
to the cell that defines it. Every code cell is a target, `{ref}`text <02_matrix-ID>``.
"""

from pathlib import Path, PurePosixPath

import nbformat
from docutils import nodes
from equations import EXPORT, Code
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

DEFAULT_MODULE = "#| default_exp "


class source_link(nodes.Inline, nodes.TextElement):
    """The name of a module that leads to its source, where that is rendered."""


class ResolveSourceLinks(SphinxPostTransform):
    """Make each `source_link` a link, or plain text where no source is rendered."""

    default_priority = 100

    def run(self, **kwargs):
        builder = self.app.builder
        rendered = builder.format == "html" and builder.name != "singlehtml"
        for node in list(self.document.findall(source_link)):
            module = node["module"]
            if rendered and module in getattr(self.env, "_viewcode_modules", {}):
                page = "_modules/" + module.replace(".", "/")
                link = make_refnode(
                    builder, node["refdoc"], page, node["anchor"], node.children
                )
                node.replace_self(link)
            else:
                node.replace_self(node.children)


def read_notebook(path):
    """The cells of a notebook and the module that its `#| default_exp` names."""
    cells = nbformat.read(path, as_version=4).cells
    for cell in cells:
        if cell.source.startswith(DEFAULT_MODULE):
            return cells, cell.source.removeprefix(DEFAULT_MODULE).split()[0]
    return cells, None


def code_cells(app, doctree):
    """The code cells of a chapter in its document tree: (container, cell, module)."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix == ".ipynb":
        cells, module = read_notebook(path)
        for container in list(doctree.findall(nodes.container)):
            if container.get("nb_element") == "cell_code":
                yield container, cells[container["cell_index"]], module


def cell_label(document, cell_id):
    """The name by which `{ref}` finds a code cell."""
    return f"{PurePosixPath(document).name}-{cell_id}"


def exported_names(chapters):
    """Where the package's functions and classes are written: name -> cell's label."""
    found = {}
    for path in sorted(chapters.glob("*.ipynb")):
        cells, module = read_notebook(path)
        for cell in cells:
            exported = EXPORT.match(cell.source)
            if exported:
                home = f"microgpt.{exported[1] or module}"
                for name in Code(cell.source).defines:
                    found[f"{home}.{name}"] = cell_label(path.stem, cell.id)
    return found


def reference_to(domain, kind, target, text, docname):
    """A link that Sphinx resolves when all documents have been read."""
    link = addnodes.pending_xref(
        "", text, refdomain=domain, reftype=kind, reftarget=target,
        refexplicit=True, refwarn=True, refdoc=docname,
    )  # fmt: skip
    return link


def make_badge(module, names, docname):
    """The paragraph "`a`, `b` exported to `microgpt/module.py`", with its links."""
    badge = nodes.paragraph(classes=["export-badge"])
    full = f"microgpt.{module}".removesuffix(".__init__")
    public = [name for name in names if not name.startswith("_")]
    for i, name in enumerate(public):
        badge += nodes.Text(", ") if i else []
        text = nodes.literal(name, name)
        badge += reference_to("py", "obj", f"{full}.{name}", text, docname)
    badge += nodes.Text(" exported to " if public else "exported to ")
    file = f"microgpt/{module}.py"
    anchor = public[0] if public else ""
    badge += source_link(
        "", "", nodes.literal(file, file), module=full, anchor=anchor, refdoc=docname
    )
    return badge


def mark_cells(app, doctree):
    """Make every code cell a target; give exported ones their badge."""
    docname = app.env.docname
    labels = app.env.get_domain("std").anonlabels
    for container, cell, module in code_cells(app, doctree):
        anchor = f"cell-{cell.id}"
        container["ids"].append(anchor)
        labels[cell_label(docname, cell.id)] = docname, anchor
        exported = EXPORT.match(cell.source)
        block = next(container.findall(nodes.literal_block), None)
        if exported and block is not None:
            text = block.astext()[exported.end() :]
            names = Code(cell.source).defines
            block.parent.insert(
                block.parent.index(block),
                make_badge(exported[1] or module, names, docname),
            )
            block.replace_self(nodes.literal_block(text, text, **block.attributes))


def link_signatures(app, doctree):
    """Let each function of the reference lead to the cell that defines it."""
    homes = None
    for signature in doctree.findall(addnodes.desc_signature):
        if homes is None:
            homes = exported_names(Path(app.srcdir, "chapters"))
        name = f"{signature.get('module')}.{signature.get('fullname')}"
        if name in homes:
            text = nodes.inline("", "[chapter]", classes=["viewcode-link"])
            signature += reference_to("std", "ref", homes[name], text, app.env.docname)


def setup(app):
    app.add_node(source_link)
    app.add_post_transform(ResolveSourceLinks)
    app.connect("doctree-read", mark_cells)
    app.connect("doctree-read", link_signatures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
