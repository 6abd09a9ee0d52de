"""The model in the page draws what the package draws, and everybody can use it."""

import base64
import contextlib
import gzip
import io
import random
import time

import nbformat
import numpy as np
import pytest

import microgpt
from microgpt.sampling import next_token_weights

PAGE, CHAPTER = "index.html", "chapters/10_names.html"
LOAD = "text => new live.GPT(Uint8Array.from(atob(text), b => b.charCodeAt(0)).buffer)"
PAUSE = 350  # milliseconds between two letters
PREFIXES = ["", "a", "ma", "qx", "abcdefghijklmno"]


@pytest.fixture(scope="module")
def saved(site):
    """Model and vocabulary from the file that the build wrote."""
    return microgpt.load_model(site / "_static/live/names.safetensors")


@pytest.fixture(scope="module")
def scripts(browser, address):
    """A page with the scripts and the weights, for what needs no reader."""
    page = browser.new_page()
    page.goto(f"{address}/{PAGE}")
    page.add_script_tag(url=f"{address}/_static/live/weights.js")
    yield page
    page.close()


@pytest.fixture
def open_model(open_page):
    """Open a page and wait until its live model shows something."""

    def open_model(name=PAGE, **options):
        page = open_page(name, **options)
        page.island = page.locator(".live-model")
        page.island.scroll_into_view_if_needed()
        page.island.locator(".live-bars span").first.wait_for()
        return page

    return open_model


def press(page, name):
    page.island.get_by_role("button", name=name, exact=True).click()


def write(page, label, text):
    page.island.get_by_label(label).fill(str(text))


def shown(page, selector):
    return page.island.locator(selector).inner_text()


def names(page):
    return page.island.locator(".live-names li").all_inner_texts()


def drawn(saved, seed, temperature, prefix, count):
    rng = random.Random(seed)
    return [microgpt.sample(*saved, rng, temperature, prefix) for _ in range(count)]


def bars(page):
    """The probabilities that are drawn as bars, unrounded."""
    read = "all => all.map(e => +e.style.getPropertyValue('--p'))"
    return np.array(page.island.locator(".live-bars span").evaluate_all(read))


# What is computed


@pytest.mark.parametrize("seed", [0, 42, -5, 2**32, 10**30])
def test_random_numbers_are_those_of_python(scripts, seed):
    count = 700  # two words each: the state is renewed twice
    found = scripts.evaluate(
        """([seed, count]) => {
            const rng = new live.MersenneTwister(BigInt(seed));
            return Array.from({ length: count }, () => rng.random());
        }""",
        [str(seed), count],
    )
    rng = random.Random(seed)
    assert found == [rng.random() for _ in range(count)]


def test_the_build_trains_the_model_of_the_book(saved, corpus):
    model = microgpt.GPT(microgpt.GPTConfig(corpus.size), corpus.rng)
    microgpt.train(model, corpus)
    assert np.array_equal(saved[0].weights, model.weights)
    assert saved[1].chars == corpus.chars


def test_names_are_those_of_the_package(scripts, saved):
    cases = [
        (seed, temperature, prefix)
        for seed in (0, 7, 10**20)
        for temperature in (0.1, 0.5, 1.0, 3.0)
        for prefix in PREFIXES
    ]
    found = scripts.evaluate(
        f"""cases => cases.map(([seed, temperature, prefix]) => {{
            const gpt = ({LOAD})(live.weights);
            const rng = new live.MersenneTwister(BigInt(seed));
            const draw = () => live.sample(gpt, rng, temperature, prefix);
            return Array.from({{ length: 20 }}, draw);
        }})""",
        [(str(seed), temperature, prefix) for seed, temperature, prefix in cases],
    )
    for case, texts in zip(cases, found, strict=True):
        assert texts == drawn(saved, *case, 20), case


def readings(scripts, gpt, prefix):
    """Logits, attention and streams at each position, as JavaScript computes them."""
    plain = "x => ArrayBuffer.isView(x) || Array.isArray(x) ? Array.from(x, plain) : x"
    return scripts.evaluate(
        f"""([text, prefix]) => {{
            const plain = {plain};
            const draft = new live.Draft(({LOAD})(text), null, 1, prefix);
            return draft.readings.map(({{ logits, attention, streams }}) =>
                [logits, attention, streams].map(plain));
        }}""",
        [gpt, prefix],
    )


def assert_equal_states(found, model, ids):
    """Compare with the package: logits, probabilities of the heads, both streams."""
    logits, a, T = model.logits(ids), model.activations, len(ids)
    for t, (z, attention, streams) in enumerate(found):
        np.testing.assert_allclose(z, logits[:, t], rtol=0, atol=1e-12)
        expected = np.transpose(a.s[:, :, t, :], (2, 1, 0))
        np.testing.assert_allclose(streams, expected, rtol=0, atol=1e-12)
        for layer, heads in enumerate(attention):
            q, k, v = (np.asfortranarray(x[:, :T, layer]) for x in (a.q, a.k, a.v))
            p = microgpt.naive_attention(q, k, v, model.config.n_head)[1]
            np.testing.assert_allclose(heads, p[: t + 1, t].T, rtol=0, atol=1e-12)
    assert len(found) == T


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_forward_pass_is_that_of_the_package(scripts, saved, site, prefix):
    file = (site / "_static/live/names.safetensors").read_bytes()
    found = readings(scripts, base64.b64encode(file).decode(), prefix)
    assert_equal_states(found, saved[0], saved[1].encode(prefix)[:-1])


def test_a_model_without_symmetry_too(scripts, odd_model, tmp_path):
    vocabulary = microgpt.Vocabulary(list("abcdefghij"))
    microgpt.save_model(tmp_path / "odd", odd_model, vocabulary)
    text = base64.b64encode((tmp_path / "odd").read_bytes()).decode()
    found = readings(scripts, text, "jabbic")
    assert_equal_states(found, odd_model, vocabulary.encode("jabbic")[:-1])


# What is shown


def test_bars_are_the_probabilities_of_the_package(open_model, saved):
    model, vocabulary = saved
    page = open_model()
    write(page, "Begins with", "mar")
    logits = model.logits(vocabulary.encode("mar")[:-1])[:, -1]
    for temperature in (0.1, 0.5, 2):
        write(page, "Temperature", temperature)
        expected = next_token_weights(logits, temperature)
        np.testing.assert_allclose(bars(page), expected, rtol=0, atol=1e-12)


def test_heat_maps_show_the_attention_of_the_package(open_model, saved):
    model, vocabulary = saved
    page = open_model()
    write(page, "Begins with", "mar")
    read = "all => all.map(e => +e.style.getPropertyValue('--p'))"
    cells = page.island.locator(".live-heads rect").evaluate_all(read)
    model.logits(vocabulary.encode("mar")[:-1])
    q, k, v = (np.asfortranarray(x[:, :4, 0]) for x in model.activations[7:10])
    p = microgpt.naive_attention(q, k, v, 4)[1]
    expected = [p[j, i, h] for h in range(4) for i in range(4) for j in range(i + 1)]
    np.testing.assert_allclose(cells, expected, rtol=0, atol=1e-12)
    text = page.island.locator(".live-streams + figcaption").text_content()
    assert text.endswith("They agree in every bit.")


def test_the_page_draws_the_names_that_its_chapter_prints(open_model, root):
    notebook = nbformat.read(root / "chapters/10_names.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if "def draw(temperature" in c.source)
    lines = cell.outputs[0].text.splitlines()
    page = open_model(CHAPTER)
    for line, following in zip(lines[1:8:2], lines[2:9:2], strict=True):
        write(page, "Temperature", float(line.split()[0]))
        press(page, "Ten names")
        assert names(page)[:6] == following.split()


def test_python_code_of_the_page_draws_the_same_names(open_model, site, monkeypatch):
    page = open_model()
    write(page, "Seed", 7)
    write(page, "Begins with", "jo")
    write(page, "Temperature", 0.8)
    press(page, "Ten names")
    monkeypatch.chdir(site / "_static/live")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(page.island.locator("pre").text_content(), {})
    assert names(page) == printed.getvalue().splitlines()
    with page.expect_download() as download:
        page.island.get_by_text("The same names in Python").click()
        page.island.get_by_role("link", name="names.safetensors").click()
    assert download.value.suggested_filename == "names.safetensors"


def test_steps_draw_letter_by_letter(open_model, saved):
    [first, second] = drawn(saved, 42, 0.5, "", 2)
    page = open_model()
    for end in range(1, len(first) + 1):
        press(page, "Step")
        assert shown(page, ".live-name") == first[:end]
        assert shown(page, ".live-message").startswith(f"Drawn: {first[end - 1]}, ")
    press(page, "Step")  # the end
    assert shown(page, ".live-message") == f"Name 1: {first}"
    press(page, "Step")
    assert shown(page, ".live-name") == second[0]
    press(page, "Start over")
    assert shown(page, ".live-name") == "" and names(page) == []


def test_playing_takes_its_time_and_can_be_paused(open_model, stop_time, saved):
    [first] = drawn(saved, 42, 0.5, "", 1)
    assert len(first) > 3
    page = open_model()
    stop_time(page)
    press(page, "Play")
    assert shown(page, ".live-name") == first[:1]
    page.clock.run_for(PAUSE)
    assert shown(page, ".live-name") == first[:2]
    press(page, "Pause")
    page.clock.run_for(10 * PAUSE)
    assert shown(page, ".live-name") == first[:2]
    press(page, "Play")
    page.clock.run_for(20 * PAUSE)
    assert shown(page, ".live-message") == f"Name 1: {first}"
    assert page.island.get_by_role("button", name="Play", exact=True).is_visible()


def test_less_motion_means_whole_names(open_model, saved):
    page = open_model(reduced_motion="reduce")
    press(page, "Play")
    assert names(page) == drawn(saved, 42, 0.5, "", 1)
    bar = page.island.locator(".live-bars i").first
    assert bar.evaluate("e => getComputedStyle(e).transitionDuration") == "0s"


def test_everything_can_be_done_with_the_keyboard(open_model, saved):
    page = open_model(reduced_motion="reduce")
    page.island.get_by_label("Begins with").focus()
    page.keyboard.type("ma")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("3")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    for key in ("Tab", "Tab", "Tab", "Enter"):  # to the third button
        page.keyboard.press(key)
    assert names(page) == drawn(saved, 3, 0.6, "ma", 10)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert len(names(page)) == 11
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"


def test_one_sentence_names_what_is_wrong(open_model):
    page = open_model()
    for label, text, right, named in (
        ("Begins with", "annÉ", "ann", "“É” is not in the vocabulary"),
        ("Begins with", "a😀", "a", "“😀” is not in the vocabulary"),
        ("Begins with", "abcdefghijklmnop", "", "16 letters; at most 15"),
        ("Seed", "4.5", "4", "“4.5” is not a seed"),
    ):
        field = page.island.get_by_label(label)
        field.fill(text)
        assert named in shown(page, ".live-message")
        assert field.get_attribute("aria-invalid") == "true"
        press(page, "Ten names")
        assert names(page) == []
        field.fill(right)
        assert shown(page, ".live-message") == ""
        assert field.get_attribute("aria-invalid") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_no_fault_at_work(open_model, faults, scheme, width):
    page = open_model(scheme=scheme, width=width)
    page.evaluate(
        "document.querySelectorAll('details').forEach(d => { d.open = true })"
    )
    write(page, "Begins with", "abcdefghijklmno")
    press(page, "Ten names")
    page.wait_for_timeout(300)  # the bars move
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.problems == [] and page.foreign == []
    assert faults(page) == []


# How it comes to the reader


def fetched(page):
    return page.evaluate(
        """performance.getEntriesByType("resource")
        .filter(e => e.name.endsWith("weights.js")).map(e => e.startTime)"""
    )


def test_weights_come_when_the_reader_does(open_page):
    page = open_page(CHAPTER)
    page.wait_for_timeout(500)
    assert fetched(page) == []
    page.locator(".live-model").scroll_into_view_if_needed()
    page.locator(".live-bars span").first.wait_for()
    assert len(fetched(page)) == 1


def test_an_early_reader_need_not_wait(open_page, saved):
    page = open_page(CHAPTER, reduced_motion="reduce")
    assert fetched(page) == []
    page.island = page.locator(".live-model")
    page.evaluate("document.querySelector('.live-model [name=play]').click()")
    page.island.get_by_text("Name 1: ").wait_for()
    assert names(page) == drawn(saved, 42, 0.5, "", 1)


def test_missing_weights_are_reported(open_page):
    page = open_page(CHAPTER)
    page.route("**/weights.js", lambda route: route.abort())
    page.locator(".live-model").scroll_into_view_if_needed()
    page.get_by_text("The weights could not be loaded").wait_for()


def test_it_works_from_disk(browser, site, saved):
    page = browser.new_page()
    page.goto((site / PAGE).as_uri())
    page.island = page.locator(".live-model")
    page.island.scroll_into_view_if_needed()
    page.island.locator(".live-bars span").first.wait_for()
    press(page, "Ten names")
    assert names(page) == drawn(saved, 42, 0.5, "", 10)
    page.close()


@pytest.mark.parametrize("name", [PAGE, CHAPTER])
def test_without_scripts_the_text_stands(browser, address, name):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{address}/{name}")
    assert page.locator(".live-model > p").first.is_visible()
    assert page.locator(".live-box").count() == 0
    page.close()


def test_other_pages_load_nothing_of_it(open_page):
    page = open_page("further.html")
    assert page.locator("[src*='/live/'], [href*='/live/']").count() == 0
    assert page.locator("[src*=mathjax], [src*=fontawesome]").count() == 0


def test_the_landing_page_is_below_a_megabyte(browser, address):
    page = browser.new_page()
    responses = []
    page.on("response", lambda response: responses.append(response))
    page.goto(f"{address}/{PAGE}")
    page.wait_for_load_state("networkidle")
    assert sum(len(gzip.compress(r.body())) for r in responses) < 1_000_000
    page.close()


def slowness():
    """How much longer a busy loop takes than it would on a core of its own."""
    wall, own = time.perf_counter(), time.process_time()
    while time.process_time() - own < 0.1:
        pass
    return (time.perf_counter() - wall) / (time.process_time() - own)


def largest_paint(browser, address):
    """Milliseconds to the largest contentful paint on a processor slowed four times."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    page.goto(f"{address}/{PAGE}", wait_until="load")
    paint = page.evaluate(
        """() => new Promise(done => new PerformanceObserver(list =>
            done(list.getEntries().at(-1).startTime)
        ).observe({ type: "largest-contentful-paint", buffered: true }))"""
    )
    page.close()
    return paint


def test_the_landing_page_shows_its_text_soon(browser, address):
    paints = []
    for _ in range(5):  # a busy machine may delay some, and all in proportion
        paints.append(largest_paint(browser, address) / slowness())
        if paints[-1] < 1500:
            return
    raise AssertionError(f"largest contentful paint after {paints} ms")
