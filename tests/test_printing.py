"""The single page that is printed: equal ids told apart, links to the right one."""

from types import SimpleNamespace

import pikepdf
from book import drop_mathjax
from print_pdf import pack
from printing import distinct_ids

BODY = """<a href="#document-b">all of b</a> <a href="#document-b#why">b's why</a>
<h2 id="why">of the first page</h2><a class="x" href="#why">here</a>
<svg><path id="why2"></svg><a href="https://example.org/#why">elsewhere</a>
<span id="document-b"></span><section id="why"><a href="#why">here</a></section>
"""


def test_links_lead_to_the_ids_of_their_own_document():
    body = distinct_ids(BODY)
    assert '<a href="#document-b">' in body and '<span id="document-b">' in body
    assert """<a href="#document-b--why">b's why""" in body
    assert '<h2 id="document-index--why">' in body
    assert '<a class="x" href="#document-index--why">' in body
    assert '<section id="document-b--why"><a href="#document-b--why">' in body


def test_other_ids_and_links_stay():
    body = distinct_ids(BODY)
    assert '<path id="why2">' in body and 'href="https://example.org/#why"' in body


def test_the_single_page_keeps_the_scripts_of_its_equations():
    def scripts(builder):
        app = SimpleNamespace(
            builder=SimpleNamespace(name=builder),
            config=SimpleNamespace(mathjax_path="mathjax.js"),
            env=SimpleNamespace(domaindata={"math": {"has_equations": {}}}),
        )
        context = {"script_files": [SimpleNamespace(filename="mathjax.js")]}
        drop_mathjax(app, "index", "page.html", context, None)
        return context["script_files"]

    assert scripts("singlehtml") and not scripts("html")


def test_the_pdf_is_packed_without_loss(tmp_path):
    path = tmp_path / "book.pdf"
    with pikepdf.new() as pdf:
        pdf.add_blank_page()
        pdf.Root.Many = pikepdf.Array(
            pdf.make_indirect(pikepdf.Dictionary(K=i)) for i in range(2000)
        )
        pdf.save(path, object_stream_mode=pikepdf.ObjectStreamMode.disable)
    before = path.stat().st_size
    pack(path)
    assert path.stat().st_size < before / 3
    with pikepdf.open(path) as pdf:
        assert [item.K for item in pdf.Root.Many] == list(range(2000))
