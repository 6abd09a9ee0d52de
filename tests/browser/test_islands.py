"""The interactive explorers: what they compute, and how they are operated.

What an explorer computes in JavaScript is compared with the package or with NumPy.
"""

import json
import random
import re
from collections import OrderedDict
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import microgpt
from microgpt.flash import flash_attention, flash_attention_backward
from microgpt.hyper_connections import birkhoff, mix, sinkhorn
from microgpt.matrix import column_major

PAGES = {
    "column-major": "chapters/02_matrix.html",
    "birkhoff": "chapters/04_hyper_connections.html",
    "flash-walk": "chapters/06_flash_attention.html",
    "training-film": "chapters/10_names.html",
}
PACES = {  # milliseconds a frame
    "column-major": 180,
    "birkhoff": 600,
    "flash-walk": 1600,
    "training-film": 400,
}
SCRIPTS = Path(__file__).parent.parent.parent / "_static" / "islands"


@pytest.fixture
def open_island(open_page):
    """Open an island's page; returns the page and the island's box."""

    def open_island(name, **options):
        page = open_page(PAGES[name], **options)
        box = page.locator(f'[data-island="{name}"] .island-box')
        box.wait_for()
        return page, box

    return open_island


@pytest.fixture(scope="module")
def scripts(browser):
    """An empty page with the islands' functions: window.islands."""
    page = browser.new_page()
    for name in ("common", *(name for name in PAGES if name != "training-film")):
        page.add_script_tag(path=SCRIPTS / f"{name}.js")
    yield page
    page.close()


def press(box, name):
    box.get_by_role("button", name=name, exact=True).last.press("Enter")


def numbers(table):
    """The numbers of a table's body, as on the page; None for an empty cell."""
    rows = table.locator("tbody tr").all()
    texts = [[c.inner_text() for c in row.locator("td").all()] for row in rows]
    return [[float(t.replace("−", "-")) if t else None for t in row] for row in texts]


def test_only_pages_with_an_island_load_one(site):
    found = {}
    for path in site.rglob("*.html"):
        text = path.read_text()
        names = set(re.findall(r'data-island="([^"]+)"', text))
        scripts = set(re.findall(r"_static/islands/([a-z-]+)\.js", text))
        expected = names | ({"common"} if names else set())
        expected |= {f"{name}-data" for name in names & {"training-film"}}
        assert scripts == expected, path
        links = re.findall(r'rel="stylesheet"[^>]* href="([^"?]+\.css)', text)
        style = "".join((path.parent / link).read_text() for link in links)
        assert (".island-box" in style) == bool(names), path
        found |= dict.fromkeys(names, path.relative_to(site).as_posix())
    assert found == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_an_island_takes_the_place_of_its_text(open_island, name):
    page, box = open_island(name)
    assert box.count() == 1 and box.is_visible()
    assert not page.locator(".island-text").is_visible()
    assert len(box.get_attribute("aria-label")) > 20
    page.emulate_media(media="print")
    assert page.locator(".island-text").is_visible() and not box.is_visible()
    assert page.problems == [] and page.foreign == []


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_its_text_is_read(browser, address, name):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{address}/{PAGES[name]}")
    text = page.locator(f'[data-island="{name}"]').inner_text()
    page.close()
    assert len(text) > 200 and ":::" not in text


@pytest.mark.parametrize("name", PAGES)
def test_it_works_in_a_page_opened_from_the_disk(browser, site, name):
    page = browser.new_page()
    page.goto(f"file://{site}/{PAGES[name]}")
    page.locator(f'[data-island="{name}"] .island-box').wait_for()
    page.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_nothing_spills(open_island, name, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page, box = open_island(name, scheme=scheme)
    press(box, "End")
    for width in (1280, 375):
        page.set_viewport_size({"width": width, "height": 900})
        found = Axe().run(page, context=".island").response["violations"]
        found = [v for v in found if v["impact"] in ("serious", "critical")]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []
        spills = box.evaluate(
            """box => [...box.querySelectorAll('*')].filter(e =>
                e.getBoundingClientRect().right > box.getBoundingClientRect().right)
                .map(e => e.outerHTML.slice(0, 80)).slice(0, 3)"""
        )
        assert spills == []


@pytest.mark.parametrize("name", PAGES)
def test_every_control_is_named_and_shows_its_focus(open_island, name):
    page, box = open_island(name)
    controls = box.locator("input, button, [role=gridcell][tabindex='0']").all()
    assert len(controls) > 5
    for control in controls:
        control.focus()
        control.press("Shift")  # the keyboard is in use: focus must be seen
        width = control.evaluate("e => getComputedStyle(e).outlineWidth")
        assert width == "3px", control.evaluate("e => e.outerHTML")
    unnamed = page.locator(".island-box").evaluate(
        """box => [...box.querySelectorAll('input')].filter(e =>
            !e.labels.length && !e.ariaLabel).length"""
    )
    assert unnamed == 0


@pytest.mark.parametrize("name", PAGES)
def test_the_player_goes_by_keyboard_and_by_itself(open_island, stop_time, name):
    page, box = open_island(name)
    stop_time(page)
    player = box.locator(".island-player")
    scrub = player.locator("input")
    start, last = scrub.input_value(), scrub.get_attribute("max")
    assert (start, box.locator(".island-status").count() > 0) == ("0", True)
    press(player, "Next")
    press(player, "Next")
    press(player, "Back")
    assert scrub.input_value() == "1"
    before = box.inner_text()
    scrub.press("ArrowRight")
    assert scrub.input_value() == "2" and box.inner_text() != before
    press(player, "End")
    assert scrub.input_value() == last
    press(player, "Play")  # from the end it begins anew
    assert scrub.input_value() == "0"
    page.clock.run_for(2 * PACES[name])
    assert scrub.input_value() == "2"
    press(player, "Pause")
    page.clock.run_for(10 * PACES[name])
    assert scrub.input_value() == "2"
    press(player, "Play")
    page.clock.run_for(int(last) * PACES[name])
    assert scrub.input_value() == last
    assert player.get_by_role("button", name="Play", exact=True).is_visible()


@pytest.mark.parametrize("name", PAGES)
def test_nothing_plays_for_who_asked_for_less_motion(open_island, name):
    page, box = open_island(name, reduced_motion="reduce")
    assert box.get_by_role("button", name="Play").count() == 0
    press(box, "Next")
    page.emulate_media(reduced_motion="no-preference")
    box.get_by_role("button", name="Play").wait_for()


# Column-major


def lines_fetched(addresses, lines):
    """Lines of 64 bytes that a cache with `lines` lines fetches, one count a read."""
    cache, fetched, counts = OrderedDict(), 0, []
    for address in addresses:
        line = address // 64
        fetched += line not in cache
        cache[line] = True
        cache.move_to_end(line)
        if len(cache) > lines:
            cache.popitem(last=False)
        counts.append(fetched)
    return counts


@pytest.mark.parametrize("order", ["column-major", "row-major"])
@pytest.mark.parametrize("walk", ["columns", "rows"])
def test_places_and_cache_lines_are_those_of_numpy(scripts, order, walk):
    for m, n, dtype, lines in [
        (16, 8, "float64", 4), (7, 5, "float32", 1), (8, 10, "float64", 8)
    ]:  # fmt: skip
        x = np.zeros((m, n), dtype, order="F" if order == "column-major" else "C")
        settings = {"m": m, "n": n, "itemsize": x.itemsize, "lines": lines}
        settings |= {"order": order, "walk": walk}
        steps = scripts.evaluate("s => islands.columnMajor.trace(s)", settings)
        indices = [(step["i"], step["j"]) for step in steps]
        whole = [*np.ndindex(m, n)] if walk == "rows" else None
        assert indices == (whole or [(i, j) for j, i in np.ndindex(n, m)])
        addresses = [int(np.dot(x.strides, at)) for at in indices]
        assert [step["byte"] for step in steps] == addresses
        assert [step["line"] for step in steps] == [a // 64 for a in addresses]
        fetched = [step["fetched"] for step in steps]
        assert fetched == lines_fetched(addresses, lines)


def test_what_the_text_says_of_the_walks_is_true(open_island):
    _, box = open_island("column-major")
    totals = box.locator("table").last
    assert numbers(totals) == [[16, 128], [128, 16]]
    box.get_by_label("lines in the cache").fill("8")
    assert numbers(totals) == [[16, 16], [128, 16]]
    assert "128 elements" in box.inner_text()


def test_an_element_is_chosen_with_the_keyboard_and_with_a_click(open_island):
    page, box = open_island("column-major")
    chosen = box.locator('[aria-selected="true"]')
    chosen.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    assert chosen.get_attribute("aria-label") == "element 0, 1, place 16"
    assert chosen.evaluate("e => e === document.activeElement")
    page.keyboard.press("PageDown")
    page.keyboard.press("ArrowDown")  # stays inside
    assert chosen.get_attribute("aria-label") == "element 15, 1, place 31"
    box.get_by_label("element 5, 3, place 53").click()
    assert "5 + 3 · 16 = 53" in box.locator(".island-status").inner_text()
    box.get_by_label("row-major").check()
    assert box.get_by_label("element 5, 3, place 43").count() == 1


# Birkhoff


def test_birkhoff_is_that_of_the_package(scripts):
    A, streams = column_major(2, 2), scripts.evaluate("islands.birkhoff.STREAMS")
    s = np.asfortranarray(np.array(streams, float).T[:, :, None])
    m = np.zeros_like(s)
    for theta in (-700.0, -2.0, 0.0, 0.3, 40.0):
        birkhoff(theta, A)
        mix(A, s, m)
        script = "t => {const b = islands.birkhoff; return [b.birkhoff(t), "
        script += "b.mix(b.birkhoff(t), b.STREAMS)]}"
        matrix, mixed = scripts.evaluate(script, theta)
        np.testing.assert_allclose(matrix, A, rtol=1e-15, atol=0)
        np.testing.assert_allclose(mixed, m[:, :, 0].T, rtol=1e-14, atol=1e-15)


def test_the_mean_of_the_streams_does_not_move(open_island):
    _, box = open_island("birkhoff")
    table, slider = box.locator("table").nth(1), box.get_by_label("θ")
    slider.press("Home")
    first = np.array(numbers(table))
    slider.press("End")
    last = np.array(numbers(table))
    assert (first[:, -1] == last[:, -1]).all() and (first[:, 2] != last[:, 2]).all()
    assert numbers(box.locator("table").first)[0] == [0.9975, 0.0025]


@pytest.mark.parametrize("size", [1.0, 50.0])
def test_sinkhorn_is_that_of_the_package(scripts, size):
    for n, iterations in product((2, 3, 4), (1, 2, 20)):
        logits = size * np.random.default_rng(n).standard_normal((n, n))
        script = "([x, k]) => islands.birkhoff.sinkhorn(x, k)"
        found = scripts.evaluate(script, [logits.tolist(), iterations])
        np.testing.assert_allclose(
            found, sinkhorn(logits, iterations), rtol=1e-11, atol=1e-300
        )


def test_edited_logits_are_iterated(open_island):
    page, box = open_island("birkhoff")
    box.get_by_label("3", exact=True).check()
    logits = np.array(page.evaluate("islands.birkhoff.LOGITS"))[:3, :3]
    logits[1, 2] = -1.5
    field = box.get_by_label("logit of row 1, column 2")
    field.fill("-1.5")
    for wrong in ("", "50.1"):  # no number, or too large: the last one stays
        field.fill(wrong)
        assert not field.evaluate("e => e.checkValidity()")
        field.press("Tab")
        assert field.input_value() == "-1.5"
    matrix = box.locator("table").last
    press(box, "Next")
    columns = np.array(numbers(matrix)[-1][:3])
    assert (columns == 1).all()
    press(box, "End")
    shown = np.array(numbers(matrix)[:3])
    np.testing.assert_allclose(shown[:, :3], sinkhorn(logits, 20), atol=5.1e-4)
    assert (shown[:, 3] == 1).all()


# FlashAttention

SIZES = [*product(((7, 3, 2), (8, 1, 4), (5, 8, 2), (6, 2, 3)), (True, False))]


def toy(page, N, d):
    """The island's toy matrices (d x N), column-major like all the package wants."""
    data = page.evaluate("([N, d]) => islands.flash.toy(N, d)", [N, d])
    return [
        np.asfortranarray(np.array(data[x], float).T) for x in ("q", "k", "v", "dO")
    ]


def walk(page, way, N, tile, d, causal):
    script = "([w, N, t, d, c]) => islands.flash[w](islands.flash.toy(N, d), t, c)"
    return page.evaluate(script, [way, N, min(tile, N), d, causal])


@pytest.mark.parametrize(("size", "causal"), SIZES)
def test_flash_walk_ends_with_the_output_of_the_package(scripts, size, causal):
    N, tile, d = size
    q, k, v, do = toy(scripts, N, d)
    o, m, l = flash_attention(q, k, v, 1, tile, causal)
    found = walk(scripts, "forward", N, tile, d, causal)
    for name, expected in (("o", o), ("m", m[0]), ("l", l[0])):
        np.testing.assert_allclose(np.array(found[name]).T, expected, atol=1e-13)
    gradients = flash_attention_backward(do, q, k, v, o, m, l, 1, tile, causal)
    found = walk(scripts, "backward", N, tile, d, causal)
    for name, expected in zip(("dq", "dk", "dv"), gradients, strict=True):
        np.testing.assert_allclose(np.array(found[name]).T, expected, atol=1e-12)


@pytest.mark.parametrize(("size", "causal"), SIZES)
def test_every_frame_knows_all_keys_seen_so_far_and_no_more(scripts, size, causal):
    N, tile, d = size
    q, k, v, _ = toy(scripts, N, d)
    S = k.T @ q / np.sqrt(d)
    S[np.tril_indices(N, -1)] = -np.inf if causal else S[np.tril_indices(N, -1)]
    frames = walk(scripts, "forward", N, tile, d, causal)["frames"]
    assert len(frames) == (-(-N // tile)) ** 2
    for frame in frames:
        I, J, end = frame["I"], frame["J"], frame["J"][-1] + 1
        assert frame["skip"] == (causal and J[0] > I[-1])
        if frame["skip"]:
            continue
        m = S[:end, I].max(axis=0)
        p = np.exp(S[:end, I] - m)
        o = v[:, :end] @ p / (p.sum(axis=0) if frame["last"] else 1)
        np.testing.assert_allclose(np.array(frame["P"]), p[J], atol=1e-14)
        np.testing.assert_allclose(np.array(frame["m"])[I], m, atol=1e-14)
        np.testing.assert_allclose(np.array(frame["l"])[I], p.sum(axis=0), atol=1e-13)
        np.testing.assert_allclose(np.array(frame["o"])[I].T, o, atol=1e-13)


@pytest.mark.parametrize(("size", "causal"), SIZES)
def test_the_traffic_is_what_the_chapter_counts(scripts, size, causal):
    N, tile, d = size
    tile, T = min(tile, N), -(-N // min(tile, N))
    sizes = [min(tile, N - t * tile) for t in range(T)]
    pairs = [(I, J) for I in range(T) for J in range(T) if J <= I or not causal]
    keys, queries = (sum(sizes[pair[k]] for pair in pairs) for k in (1, 0))
    expected = {
        "forward": (N * d + 2 * d * keys, N * d),
        "backward": (9 * N * d + 5 * d * queries, 7 * N * d + d * queries),
    }
    if not causal:  # the equations flash-traffic and flash-traffic-backward
        formulas = {
            "forward": ((2 * T + 1) * N * d, N * d),
            "backward": ((5 * T + 9) * N * d, (T + 7) * N * d),
        }
        assert expected == formulas
    for way, (reads, writes) in expected.items():
        moved = walk(scripts, way, N, tile, d, causal)["frames"][-1]["moved"]
        assert moved == {"reads": reads, "writes": writes}


def test_the_page_shows_what_was_computed(open_island):
    page, box = open_island("flash-walk")
    box.get_by_label("positions N").fill("5")
    box.get_by_label("features d").fill("3")
    box.get_by_label("tile", exact=True).fill("2")
    box.get_by_label("causal").uncheck()
    press(box, "End")
    o, m, l = flash_attention(*toy(page, 5, 3)[:3], 1, 2, False)
    shown = numbers(box.locator("table").first)
    np.testing.assert_allclose(shown[:2], [m[0], l[0]], atol=5.1e-3)
    np.testing.assert_allclose(shown[3:], o, atol=5.1e-3)
    reads, writes = (2 * 3 + 1) * 15, 15
    plain = [3 * 25 + 3 * 15, 3 * 25 + 15]
    assert numbers(box.locator("table").last) == [
        [reads, writes, 8 * (reads + writes)],
        [reads, writes, 8 * (reads + writes)],
        [*plain, 8 * sum(plain)],
    ]
    box.get_by_label("backward").check()
    assert box.locator("table").count() == 3


def test_less_motion_brings_a_strip_of_still_frames(open_island):
    page, box = open_island("flash-walk", reduced_motion="reduce")
    frames = box.locator(".island-strip button")
    assert frames.count() == 9
    frames.nth(4).press("Enter")
    assert frames.nth(4).get_attribute("aria-current") == "step"
    assert "Queries 3 to 5, keys 3 to 5" in box.locator(".island-status").inner_text()
    page.emulate_media(reduced_motion="no-preference")
    frames.first.wait_for(state="detached")


# The training film


@pytest.fixture(scope="module")
def film(site):
    """The film's data as they were written into the built book."""
    path = site / "_static" / "islands" / "training-film-data.js"
    assert path.stat().st_size < 150_000
    return json.loads(path.read_text().removeprefix("window.islands.film = ")[:-2])


@pytest.mark.parametrize("start", ["seed", "asymmetric"])
def test_the_film_ends_where_training_ends(film, root, start):
    corpus = microgpt.load_corpus(root / "input.txt")
    config = microgpt.GPTConfig(corpus.size, start=start)
    model = microgpt.GPT(config, corpus.rng)
    first = {key: x.tolist() for key, x in model.params.items() if x.ndim == 1}
    losses = microgpt.train(model, corpus)
    reel, every = film[start], film["every"]
    means = losses.reshape(-1, every).mean(axis=1)
    np.testing.assert_allclose(reel["loss"], means, atol=5.1e-5)
    assert reel["scalars"][0] == first
    for key, shown in reel["scalars"][-1].items():
        np.testing.assert_allclose(shown, model.params[key], atol=5.1e-5)
    rng = random.Random(1)
    names = [microgpt.sample(model, corpus, rng) for _ in reel["names"][-1]]
    assert reel["names"][-1] == names
    stops = len(losses) // every + 1
    for key in ("names", "letters", "scalars"):
        assert len(reel[key]) == stops


@pytest.mark.parametrize("start", ["seed", "asymmetric"])
def test_the_letters_lie_in_their_principal_plane(film, root, start):
    corpus = microgpt.load_corpus(root / "input.txt")
    config = microgpt.GPTConfig(corpus.size, start=start)
    model = microgpt.GPT(config, corpus.rng)
    microgpt.train(model, corpus)
    wte = model.params["wte"]
    values = np.linalg.eigvalsh(np.cov(wte, bias=True))[::-1]
    shown = np.array(film[start]["letters"][-1])
    assert shown.shape == (corpus.size, 2)
    np.testing.assert_allclose(shown.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(shown.var(axis=0), values[:2], rtol=0.01)


def test_the_film_shows_what_was_stored(open_island, film):
    page, box = open_island("training-film")
    press(box, "End")
    text = box.inner_text()
    for start in ("seed", "asymmetric"):
        assert ", ".join(film[start]["names"][-1]) in text
        assert f"{film[start]['loss'][-1]:.3f} ({start})" in text
    for table, start in zip(
        box.locator("table").all(), ("seed", "asymmetric"), strict=True
    ):
        shown = [x for row in numbers(table) for x in row]
        scalars = film[start]["scalars"][-1]
        order = [
            f"0.{part}.{x}"
            for part in ("attn", "mlp")
            for x in ("theta", "alpha", "beta")
        ]
        expected = [x for key in (*order, "contract") for x in scalars[key]]
        np.testing.assert_allclose(shown, expected, atol=5.1e-4)
    press(box, "Start")
    assert box.inner_text() != text and page.problems == []
