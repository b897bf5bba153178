"""The page in Chromium: nothing is asked of a network, and all that can be used works."""

import shutil

import pytest

from nlora.page.build import page
from tests.page.conftest import TASKS
from tests.report.rows import grid, write

pytest.importorskip("vl_convert")
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def place(nasty, tmp_path_factory):
    """The page of a run and of a ledger of two methods."""
    folder = tmp_path_factory.mktemp("page")
    ledger = write(folder / "ledger.jsonl", grid(["inc-lora", "n-lora", "o-lora"], ["order-1"]))
    (folder / "page.html").write_text(page([nasty, ledger]), encoding="utf-8")
    return folder / "page.html"


@pytest.fixture(scope="module")
def opened(place):
    """The page, opened once, and what the browser said meanwhile."""
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.set_default_timeout(10_000)
        said = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: said.append(request.url))
        tab.goto(place.as_uri())
        tab.wait_for_selector("body[data-drawn]")
        yield tab, said
        browser.close()


def test_it_draws_all_without_a_network_or_a_complaint(opened, place):
    tab, said = opened
    assert [one for one in said if not one.startswith("data:")] == [place.as_uri()]
    drawn = tab.locator(".plot").count()
    assert drawn > 5
    assert tab.locator(".plot > svg, .plot .vega-embed svg, .plot svg.marks").count() == drawn
    assert tab.title().startswith("nlora: ")


def test_tables_are_sorted_by_mouse_and_keyboard(opened):
    tab, _ = opened
    table = tab.locator("table.sortable", has=tab.get_by_text("order-1: learning")).first
    column = table.locator("thead button").all_inner_texts().index("order-1: learning")

    def values():
        cells = table.locator(f"tbody tr > :nth-child({column + 1})")
        return [float(text.split()[0]) for text in cells.all_inner_texts() if text != "–"]

    button = table.locator("thead button").nth(column)
    button.click()
    assert values() == sorted(values(), reverse=True)
    assert table.locator("[aria-sort='descending']").count() == 1
    button.press("Enter")
    assert values() == sorted(values())
    assert len(values()) == 3


def test_wrong_answers_are_filtered(opened):
    tab, _ = opened
    rows = tab.locator("table.answers tbody tr")
    every = rows.count()
    task = list(TASKS)[1]
    tab.locator("select[name='task']").select_option(task)
    shown = tab.locator("table.answers tbody tr:visible")
    assert 0 < shown.count() < every
    assert set(shown.locator("th").all_inner_texts()) == {task}
    assert tab.locator(".filters output").inner_text() == f"{shown.count()} of {every}"
    tab.locator("input[name='words']").fill("nowhere to be found")
    assert shown.count() == 0
    tab.locator("input[name='words']").fill("")
    tab.locator("select[name='task']").select_option("")
    assert shown.count() == every


def test_it_prints_with_all_that_is_folded(opened):
    tab, _ = opened
    tab.evaluate("addEventListener('beforeprint', () => (window.closed_ = folded.length))")
    assert tab.pdf().startswith(b"%PDF-")
    assert tab.evaluate("closed_") > 0
    assert tab.locator("details:not([open])").count() == tab.evaluate("closed_")


def test_axe_finds_nothing_in_light_and_dark_and_a_phone_is_wide_enough(opened):
    tab, _ = opened
    for scheme, width in (("light", 1200), ("dark", 390)):
        tab.set_viewport_size({"width": width, "height": 800})
        tab.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(tab)
        assert not found.violations_count, found.generate_report()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
