"""The rendered book, as a reader's browser meets it.

The book is built from its stored outputs with warnings as errors, served from this
machine, and every page is opened in headless Chromium.
"""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [
    f"{name}.html"
    for name in [TOC["root"]]
    + [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
]


@pytest.mark.parametrize("name", PAGES)
def test_page_loads_without_an_error_or_a_foreign_request(open_page, name):
    page = open_page(name)
    assert page.problems == []
    assert page.foreign == []
    assert page.locator("article h1").count() == 1


@pytest.mark.parametrize("name", PAGES)
def test_every_equation_is_drawn(open_page, name):
    page = open_page(name)
    expected = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= expected
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways_on_a_phone(open_page, name):
    page = open_page(name, width=375)
    wide = page.evaluate(
        """() => document.documentElement.scrollWidth <= 375 ? [] :
        [...document.querySelectorAll('main *')].filter(e =>
            e.getBoundingClientRect().right > 376 &&
            !e.closest('pre, .math, mjx-container, .output, table'))
        .slice(0, 5).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 375, wide


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(open_page, name, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(name, scheme=scheme)
    results = Axe().run(page, options={"resultTypes": ["violations"]})
    serious = [
        (v["id"], v["nodes"][0]["html"][:200], len(v["nodes"]))
        for v in results.response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("name", PAGES)
def test_every_image_is_described(open_page, name):
    page = open_page(name)
    described = page.locator("main img").evaluate_all("all => all.map(e => e.alt)")
    assert all(len(alt) > 10 and not alt.endswith(".png") for alt in described)


def test_internal_links_and_anchors_exist(site):
    anchors = {
        path.relative_to(site).as_posix(): set(
            re.findall(r'\bid="([^"]+)"', path.read_text())
        )
        for path in site.rglob("*.html")
    }
    broken = []
    for name in anchors:
        for link in re.findall(r'<a [^>]*href="([^"]+)"', (site / name).read_text()):
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (
                (site / name).parent.joinpath(file).resolve() if file else site / name
            )
            if not target.is_file():
                broken.append(f"{name}: {link}")
            elif anchor and target.suffix == ".html":
                key = target.relative_to(site.resolve()).as_posix()
                if anchor not in anchors[key]:
                    broken.append(f"{name}: {link}")
    assert broken == []
