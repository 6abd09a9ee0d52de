"""Every page of the rendered book, as a reader's browser meets it."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from offline import control, why_not, without_network

ROOT = Path(__file__).parent.parent.parent
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
PAGES = [
    f"{name}.html"
    for name in [TOC["root"]]
    + [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
]


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_the_book_was_built_without_a_network(site):
    """The fixture built it where this control, too, finds no way out."""
    subprocess.run(without_network(control()), check=True)


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
def test_axe_finds_nothing_serious(open_page, faults, name, scheme):
    assert faults(open_page(name, scheme=scheme)) == []


@pytest.mark.parametrize("name", PAGES)
def test_every_image_is_described(open_page, name):
    page = open_page(name)
    described = page.locator("main img").evaluate_all("all => all.map(e => e.alt)")
    assert all(len(alt) > 10 and not alt.endswith(".png") for alt in described)


A4 = 659  # pixels between the margins of a printed page


@pytest.mark.parametrize("name", PAGES)
def test_paper_shows_everything_and_cuts_nothing_off(open_page, name):
    page = open_page(name, width=A4)
    page.emulate_media(media="print")
    assert page.locator("article h1").is_visible()
    bars = page.locator(
        ".bd-sidebar, .bd-header-article, .prev-next-footer, .headerlink"
    )
    assert not any(bar.is_visible() for bar in bars.all())
    hidden, cut = page.evaluate(
        """() => [
        [...document.querySelectorAll('article .solution p, article .cell_input pre')]
            .filter(e => !e.checkVisibility()),
        [...document.querySelectorAll('article :is(pre, table, img, figure, p)')]
            .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth
                || e.getBoundingClientRect().right > window.innerWidth + 1)
        ].map(all => all.map(e => e.outerHTML.slice(0, 200)).slice(0, 5))"""
    )
    assert hidden == []
    assert cut == []


def test_internal_links_and_anchors_exist(site):
    anchors = {
        path.relative_to(site).as_posix(): set(
            re.findall(r'\bid="([^"]+)"', path.read_text("utf-8"))
        )
        for path in site.rglob("*.html")
    }
    broken = []
    for name in anchors:
        text = (site / name).read_text("utf-8")
        for link in re.findall(r'<a [^>]*href="([^"]+)"', text):
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
