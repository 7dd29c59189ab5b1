"""The HTML page in a real browser: it sorts, filters, browses, follows the theme, and stays by itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report.synthetic import synthetic_run

from bench.report.html.page import write_html
from bench.report.view import RunView

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

EVIL_CAPTION = "<img src=x onerror=alert(1)>"
EVIL_NAME = "a \"quoted\" 'name'\nof </script><script>alert(2)</script> two lines"


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    run = synthetic_run(
        folder / "run", samplers=("prior", "langevin", EVIL_NAME), num=150, captions={3: EVIL_CAPTION}
    )
    return write_html([RunView(run)], folder / "out", store_url=str(folder / "no-store"))[0]


@pytest.fixture(scope="module")
def watched(open_page, page_path):
    """The page, opened once; tests that share it leave it as they found it, or say what they need."""
    return open_page(page_path)


@pytest.fixture
def page(watched):
    watched.page.keyboard.press("Escape")
    for box in watched.page.locator("fieldset input[type=checkbox]").all():
        box.check()
    for search in watched.page.locator("input[type=search]").all():
        search.fill("")
    return watched.page


def scroll_to_samples(page) -> None:
    page.evaluate("document.querySelector('.browser').scrollIntoView({behavior: 'instant'})")
    page.wait_for_selector(".tile")


def column(page, number: int) -> list[str]:
    return page.locator(f"table.scores tbody tr > :nth-child({number})").all_inner_texts()


def test_a_click_on_a_head_sorts_by_value_and_says_so(page, watched):
    head = watched.page.locator("table.scores th", has_text="FID")
    button = head.get_by_role("button")
    button.click()
    values = [float(text.split()[0]) for text in column(watched.page, 4)]
    assert values == sorted(values) == [10.0, 15.0, 30.0]
    assert head.get_attribute("aria-sort") == "ascending"
    button.focus()
    watched.page.keyboard.press("Enter")
    assert [float(text.split()[0]) for text in column(watched.page, 4)] == [30.0, 15.0, 10.0]
    assert watched.said == []


def test_the_filter_keeps_matching_rows_and_counts_them(page):
    page.get_by_label("Filter rows").fill("langevin")
    shown = [row for row in page.locator("table.scores tbody tr").all() if row.is_visible()]
    assert len(shown) == 1
    assert page.get_by_text("1 of 3 rows").is_visible()


def test_less_important_metrics_are_there_on_demand(page):
    head = page.locator("table.scores th", has_text="KID")
    assert not head.is_visible()
    page.get_by_label(re.compile("All 5 metrics")).check()
    assert head.is_visible()


def test_intervals_and_what_is_not_distinguishable_are_told(page):
    assert "28.50 to 31.50" in column(page, 4)[0]
    assert "(best)" in page.locator("table.scores tbody").text_content()


def test_browsing_filters_captions_and_sorts_by_a_judge(page, watched):
    scroll_to_samples(page)
    assert page.locator(".browser .tile").first.is_visible()
    page.get_by_label("Caption contains").fill("heart red")
    expect(page.locator(".browser [role=status]")).not_to_have_text("150 of 150 prompts")
    texts = page.locator(".prompt > .text").all_text_contents()
    assert texts
    assert all("heart" in text and "red" in text for text in texts)
    page.get_by_label("Caption contains").fill("")
    expect(page.locator(".browser [role=status]")).to_have_text("150 of 150 prompts")
    page.get_by_label("Order", exact=True).select_option("highest first")
    page.get_by_label("Order by", exact=True).select_option("clip-cosine")
    page.get_by_label("Order by that of").select_option(label="langevin")
    expect(page.locator(".worth").nth(1)).to_contain_text("clip-cosine")
    worths = page.locator(".tile:nth-child(2) .worth").all_text_contents()
    values = [float(text.split()[-1]) for text in worths]
    assert len(values) >= 40
    assert values == sorted(values, reverse=True)
    assert watched.said == []


def test_unticking_a_variant_removes_its_tiles(page):
    scroll_to_samples(page)
    page.get_by_role("checkbox", name="langevin").uncheck()
    assert page.locator(".prompt").first.locator(".tile").count() == 2


def test_a_sample_opens_by_keyboard_walks_and_closes(page, watched):
    scroll_to_samples(page)
    page.locator(".tile").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    title = page.locator("#sample-title")
    first = title.inner_text()
    assert dialog.locator(".views section").count() == 3
    page.keyboard.press("ArrowRight")
    assert title.inner_text() != first
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() == first
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert watched.said == []


def test_every_sample_is_reached_by_scrolling_and_few_are_built_at_first(page):
    page.evaluate("window.scrollTo(0, 0)")
    page.get_by_label("Order", exact=True).select_option("lowest first")  # arranges anew
    assert page.locator(".prompt").count() < 150
    for _ in range(20):
        page.locator(".sentinel").scroll_into_view_if_needed()
        page.wait_for_timeout(50)
        if page.locator(".prompt").count() == 150:
            break
    assert page.locator(".prompt").count() == 150
    page.get_by_label("Order", exact=True).select_option("as in the suite")


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme_follows_the_system_and_the_button(open_page, page_path, dark):
    page = open_page(page_path, dark=dark).page

    def is_dark() -> bool:
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", color)[:3]) < 3 * 128

    assert is_dark() == dark
    page.locator("#theme").click()
    assert is_dark() != dark
    assert page.locator("#theme").get_attribute("aria-pressed") == str(not dark).lower()


def test_charts_are_drawn_and_change_with_the_choice(page, watched):
    page.locator(".chart").first.scroll_into_view_if_needed()
    page.wait_for_selector(".chart .main-svg")
    select = page.locator("select[data-choice]").first
    select.select_option(label="Class accuracy")
    expect(page.locator(".chart .ytitle").first).to_contain_text("Class accuracy")
    assert watched.said == []
    assert watched.foreign == []


def test_untrusted_text_is_text_and_nothing_leaves_the_file(page, watched):
    scroll_to_samples(page)
    page.get_by_label("Caption contains").fill("onerror")
    expect(page.locator(".prompt")).to_have_count(1)
    assert page.locator(".prompt > .text").inner_text() == EVIL_CAPTION
    page.locator(".tile").first.click()
    assert page.locator("#sample-title").inner_text() == EVIL_CAPTION
    names = page.locator(".views h5").all_text_contents()
    assert any(name == EVIL_NAME for name in names)
    page.locator(".chart").first.scroll_into_view_if_needed()
    page.wait_for_selector(".chart .main-svg")
    for box in page.locator(".chart").all():
        box.scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("script:not([type])").count() == 2  # plotly and the page's own
    assert watched.said == []
    assert watched.foreign == []


def test_the_policy_stops_a_script_that_is_not_the_pages_own(open_page, page_path):
    watched = open_page(page_path)
    watched.page.evaluate(
        """() => {
          const foreign = document.createElement('script');
          foreign.textContent = 'window.broken = 1';
          document.body.append(foreign);
        }"""
    )
    assert watched.page.evaluate("window.broken") is None
    assert any("Content Security Policy" in text for text in watched.said)


def test_a_narrow_screen_needs_no_sideways_scrolling(open_page, page_path):
    page = open_page(page_path, width=390).page
    scroll_to_samples(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_every_control_has_a_name_and_ids_are_unique(page):
    scroll_to_samples(page)
    nameless = page.evaluate(
        """() => {
          const named = (e) => e.getAttribute('aria-label') || e.textContent.trim();
          return [...document.querySelectorAll('button, input, select, [role=region], [role=img]')]
            .filter((e) => !named(e) && !(e.closest('label') && named(e.closest('label'))))
            .map((e) => e.outerHTML.slice(0, 100));
        }"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_too_many_pictures_go_into_a_folder_beside_the_page(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.report.html.page.MOST_IMAGE_BYTES", 1000)
    run = synthetic_run(tmp_path / "run", num=20)
    page_file, *pictures = write_html([RunView(run)], tmp_path / "out", store_url=str(tmp_path / "none"))
    assert pictures
    assert all(picture.parent.name == "report-images" for picture in pictures)
    watched = open_page(page_file)
    scroll_to_samples(watched.page)
    watched.page.wait_for_timeout(200)
    assert watched.foreign
    assert all(url.startswith((tmp_path / "out").as_uri()) for url in watched.foreign)
    assert watched.said == []


def test_the_thumbnail_of_a_sample_is_that_sample(open_page, tmp_path):
    """Each tile's middle pixel against the PNG in the run's folder, through sprite, position and scale."""
    from bench.store import RunStore

    run = synthetic_run(tmp_path / "run", num=300, samplers=("prior",))
    page = open_page(write_html([RunView(run)], tmp_path / "out", store_url=str(tmp_path / "none"))[0]).page
    scroll_to_samples(page)
    page.get_by_label("Order", exact=True).select_option("highest first")
    found = page.evaluate(
        """async () => {
          const tile = document.querySelector('.tile .picture'), style = tile.style;
          const image = new Image();
          image.src = style.backgroundImage.slice(5, -2);
          await image.decode();
          const [x, y] = style.backgroundPosition.split(' ').map(parseFloat);
          const scale = parseFloat(style.backgroundSize) / image.naturalWidth;
          const canvas = document.createElement('canvas');
          [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
          const context = canvas.getContext('2d');
          context.drawImage(image, 0, 0);
          const [left, top] = [x, y].map((value) => Math.round(-value / scale));
          const at = (d) => [...context.getImageData(left + d, top + d, 1, 1).data].slice(0, 3);
          return [at(4), at(12), at(20), at(28)];
        }"""
    )
    table = (
        RunStore(run).read_samples("cell-0").sort_values(["class-accuracy"], ascending=False, kind="stable")
    )
    image = RunStore(run).read_images("cell-0", [int(table.iloc[0]["index"])])[0]
    for pixel, place in zip(found, (4, 12, 20, 28)):
        assert abs(image[:, place, place].astype(int) - pixel).max() < 25


def test_pages_of_comparisons_and_histories_open_without_a_fault(open_page, tmp_path):
    from dataclasses import replace

    from bench.history import points_of, series
    from bench.report.compare import compare_runs, write_comparison
    from bench.report.trends import write_trends

    run = synthetic_run(tmp_path / "run", samplers=("prior", EVIL_NAME))
    compared, _ = write_comparison(compare_runs(str(run), str(run)), EVIL_CAPTION, tmp_path)
    point = points_of(run, "c")[-2]
    points = [replace(point, commit=f"{k:040x}", value=1.0 + (k > 9)) for k in range(20)]
    (trends,) = write_trends(series(points), tmp_path)
    for path in (compared, trends):
        watched = open_page(path)
        watched.page.locator("thead button").first.click()
        assert watched.page.locator("tbody tr").count() >= 1
        assert watched.page.locator("img").count() == 0
        for chart in watched.page.locator(".chart").all():
            chart.scroll_into_view_if_needed()
            watched.page.wait_for_selector(".chart .main-svg")
        assert watched.said == []
        assert watched.foreign == []
    assert "+100.0 %" in watched.page.locator("tbody").inner_text()
