"""The single page that is printed: equal ids told apart, links to the right one."""

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
