"""How a page reads: equations beside code, definitions of terms, figures, the index."""

import re
from collections import Counter

import pytest

CHAPTER = "chapters/03_rmsnorm.html"
CARD = "#cell-070f0ccf > .equation-card"
WIDE = 1680  # room for the contents of the page as well
LINE = 676  # pixels of 88 characters of code


@pytest.mark.parametrize("width", [1400, WIDE, 1920])
def test_equation_and_code_stand_side_by_side_where_there_is_room(open_page, width):
    page = open_page(CHAPTER, width=width)
    card, contents = page.locator(CARD), page.locator(".bd-sidebar-secondary")
    assert contents.is_visible()
    card.scroll_into_view_if_needed()
    assert card.locator("mjx-container").first.is_visible()
    beside = card.bounding_box()
    code = page.locator("#cell-070f0ccf > .cell_input").bounding_box()
    assert abs(beside["y"] - code["y"]) < 2
    assert LINE + 32 <= code["width"] <= beside["x"] - code["x"]
    assert beside["x"] + beside["width"] <= width
    if width < WIDE:
        contents.wait_for(state="hidden")
        page.keyboard.press("Control+Home")
        contents.wait_for(state="visible")
    else:
        assert beside["x"] + beside["width"] <= contents.bounding_box()["x"]
    assert "C × T" in card.locator("dd").first.inner_text()
    card.locator('.card-equation a[href$="#equation-rmsnorm-forward"]').click()
    page.wait_for_url("**#equation-rmsnorm-forward")


@pytest.mark.parametrize("width", [1280, 1366])
def test_code_beside_the_contents_need_not_be_scrolled(open_page, width):
    page = open_page(CHAPTER, width=width)
    assert page.locator(".bd-sidebar-secondary").is_visible()
    widths = page.locator(".cell_input pre").evaluate_all(
        "all => all.map(e => [e.scrollWidth, e.clientWidth, e.textContent])"
    )
    assert max(len(line) for *_, text in widths for line in text.split("\n")) == 88
    assert [text for there, room, text in widths if there > room] == []


@pytest.mark.parametrize("width", [375, 1280])
def test_elsewhere_the_card_is_a_folded_line_above_the_code(open_page, width):
    page = open_page(CHAPTER, width=width)
    card = page.locator(CARD)
    assert not card.locator("mjx-container").first.is_visible()
    assert card.bounding_box()["height"] < 40
    card.locator("summary").click()
    assert card.locator("mjx-container").first.is_visible()
    page.emulate_media(media="print")
    assert not card.is_visible()


def test_no_anchor_or_number_comes_twice(site):
    for path in sorted((site / "chapters").glob("*.html")):
        text = path.read_text("utf-8")
        for pattern in (
            r' id="((?:equation|hint|cell|fig)-[^"]+)"',
            r'class="eqno">(\([\d.]+\))',
        ):
            twice = [x for x, n in Counter(re.findall(pattern, text)).items() if n > 1]
            assert twice == [], path.name


def test_without_scripts_cards_and_definitions_are_there(browser, address):
    context = browser.new_context(
        viewport={"width": WIDE, "height": 900}, java_script_enabled=False
    )
    page = context.new_page()
    page.goto(f"{address}/{CHAPTER}")
    assert page.locator(f"{CARD} dl").is_visible()
    assert page.locator("figure img.only-light").first.is_visible()
    assert not page.locator("figure img.only-dark").first.is_visible()
    page.locator("a.hint").first.hover()
    assert page.locator(".hint-text").first.is_visible()
    context.close()


def test_a_definition_comes_with_the_pointer_or_the_keyboard_and_goes(open_page):
    page = open_page(CHAPTER)
    word, note = page.locator("a.hint").first, page.locator(".hint-text").first
    assert word.get_attribute("aria-describedby") == note.get_attribute("id")
    word.hover()
    assert note.is_visible()
    page.keyboard.press("Escape")
    assert not note.is_visible()
    page.mouse.move(0, 0)
    word.hover()
    assert note.is_visible()
    note.hover()
    assert note.is_visible(), "the pointer may go to the definition"
    page.mouse.move(0, 0)
    word.evaluate("e => e.focus({ focusVisible: true })")
    assert note.is_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/glossary.html#term-*")


@pytest.mark.parametrize("width", [375, 1280])
def test_definitions_stay_on_the_page_and_each_term_is_marked_once(open_page, width):
    page = open_page(CHAPTER, width=width)
    addresses = page.locator("a.hint").evaluate_all("all => all.map(e => e.href)")
    assert len(addresses) == len(set(addresses)) > 5
    for place in "h1, h2, h3, a a, pre, figcaption, .math, .contract".split(", "):
        assert page.locator(f"{place} .hint").count() == 0, place
    focus = "e => (e.focus({ focusVisible: true }), e.getClientRects()[0].left)"
    for i in range(len(addresses)):
        left = page.locator("a.hint").nth(i).evaluate(focus)
        box = page.locator(".hint-text").nth(i).bounding_box()
        right = box["x"] + box["width"]
        assert 0 <= box["x"] < left + 1 < right <= width, "under its word"


@pytest.mark.parametrize("width", [375, 1280])
def test_no_line_begins_with_the_comma_of_a_formula(open_page, width):
    page = open_page(CHAPTER, width=width)
    page.locator("mjx-container").first.wait_for()
    followed, torn = page.evaluate(
        """() => {
            const all = [...document.querySelectorAll('article span.math')].filter(
                m => m.offsetParent && /^[,.;:)]/.test(m.nextSibling?.data ?? ''));
            return [all.length, all.filter(m => {
                const comma = document.createRange();
                comma.setStart(m.nextSibling, 0);
                comma.setEnd(m.nextSibling, 1);
                const end = m.getBoundingClientRect().right;
                return comma.getBoundingClientRect().left < end - 1;
            }).map(m => m.closest('p, li, td').textContent)];
        }"""
    )
    assert followed > 20 and torn == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_has_its_caption(open_page, scheme):
    page = open_page(CHAPTER, scheme=scheme)
    captions = page.locator("figure[id] figcaption")
    assert captions.count() == page.locator("figure[id]").count() > 2
    for i in range(captions.count()):
        assert captions.nth(i).is_visible(), captions.nth(i).text_content()


def test_dark_pages_show_figures_in_light_ink(open_page):
    page = open_page(CHAPTER, scheme="dark")
    figure = page.locator("figure:has(img.only-dark)").first
    figure.scroll_into_view_if_needed()
    dark, light = figure.locator("img.only-dark"), figure.locator("img.only-light")
    dark.wait_for()  # it is loaded when it comes into view
    assert dark.is_visible() and not light.is_visible()
    assert dark.get_attribute("alt") == light.get_attribute("alt")
    corner, brightest = dark.evaluate(
        """async e => {
            await e.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [e.naturalWidth, e.naturalHeight];
            const c = canvas.getContext("2d");
            c.drawImage(e, 0, 0);
            const pixels = c.getImageData(0, 0, canvas.width, canvas.height).data;
            let most = 0;
            for (let i = 0; i < pixels.length; i += 4)
                if (pixels[i + 3] === 255) most = Math.max(most, pixels[i]);
            return [pixels[3], most];
        }"""
    )
    assert corner == 0 and brightest > 200


def test_the_index_lists_terms_and_names(open_page):
    page = open_page("index.html")
    page.locator(".bd-sidebar-primary a", has_text=re.compile("^ *Index *$")).click()
    page.wait_for_url("**/genindex.html")
    for name in ("softmax", "online softmax", "rmsnorm_backward()", "GPT"):
        links = page.locator(".genindextable a", has_text=name)
        assert links.count() > 0, name
    page.set_viewport_size({"width": 375, "height": 900})
    cell = page.locator(".genindextable td").first.bounding_box()
    assert cell["width"] > 300, "one column on a phone"


def test_search_finds_and_code_is_coloured_in_the_dark(open_page):
    page = open_page("search.html?q=sinkhorn", scheme="dark")
    page.locator("#search-results li a").first.wait_for()
    assert page.problems == []
    page = open_page(CHAPTER, scheme="dark")
    word = page.locator(".highlight .k").first
    red, green, blue = map(
        int, re.findall(r"\d+", word.evaluate("e => getComputedStyle(e).color"))[:3]
    )
    assert max(red, green, blue) > 128


def test_a_page_waits_for_one_style_sheet_and_no_script(open_page):
    page = open_page(CHAPTER)
    assert page.locator("link[rel=stylesheet]").count() == 1
    assert page.locator("head script[src]:not([defer]):not([async])").count() == 0
    assert page.locator("script[src*=searchindex]").count() == 0
