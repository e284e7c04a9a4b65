"""The report's page in a real browser: read wide and on a phone, light and dark."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from browser import Browser, Page, find_chromium
from conftest import Ran
from made_up_study import MadeUpStudy

from prunelab.reports import write_report

SCREENS = [("wide", 1280, "light"), ("wide", 1280, "dark"), ("phone", 390, "light"), ("phone", 390, "dark")]

# Every text and every mark that can be seen, with its contrast against what lies behind it, by WCAG 2.2's formula.
CONTRAST = """
(() => {
  const parse = text => {
    const found = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(srgb") ? [...found.slice(0, 3).map(x => 255 * x), found[3] ?? 1]
      : [...found.slice(0, 3), found[3] ?? 1];
  };
  const over = (top, below) => top.slice(0, 3).map((x, i) => x * top[3] + below[i] * (1 - top[3]));
  const luminance = rgb => {
    const [r, g, b] = rgb.map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const behind = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255]);
  };
  const opacity = element => {
    let found = 1;
    for (let at = element; at; at = at.parentElement) found *= Number(getComputedStyle(at).opacity);
    return found;
  };
  const seen = element => element.checkVisibility({checkOpacity: false}) && element.getClientRects().length > 0;
  for (const one of document.querySelectorAll("details")) one.open = true;
  const low = [];
  let count = 0;
  const judge = (element, colour, least, what) => {
    const back = behind(element);
    const [r, g, b, a] = parse(colour);
    const found = contrast(over([r, g, b, a * opacity(element)], back), back);
    count += 1;
    if (found < least - 0.005) low.push(`${what}: ${found.toFixed(2)} of ${least}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, element = text.parentElement;
    if (!text.textContent.trim() || !seen(element) || element.closest("script, style")) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const colour = element.closest("svg") ? style.fill : style.color;
    judge(element, colour, large ? 3 : 4.5, `${element.tagName} "${text.textContent.trim().slice(0, 40)}"`);
  }
  for (const mark of document.querySelectorAll(".point > *, .axis, .zero, .swatch circle, .swatch path")) {
    if (!seen(mark)) continue;
    const style = getComputedStyle(mark), open = mark.closest(".open") || style.fill === "none";
    judge(mark, open || mark.tagName === "line" ? style.stroke : style.fill, 3,
      `${mark.closest("[id]").id} ${mark.parentElement.getAttribute("class")}`);
  }
  return {count, low: [...new Set(low)]};
})()
"""

OVERLONG = """
[...document.querySelectorAll("body *")].filter(one => !one.closest(".scroll, pre, svg, .bar ul, .skip, #tip")
  && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 120))
"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a made-up study that has everything."""
    folder = tmp_path_factory.mktemp("run")
    run = MadeUpStudy(folder, models=("LLaMA-3-8B", "other-8B"), ratios=(0.1, 0.2), seeds=(0, 1), size=0.02).run()
    write_report(run)
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium here: install the distribution's package (apt-get install chromium)")
    with Browser(executable, tmp_path_factory.mktemp("browser") / "profile") as running:
        yield running


@pytest.fixture
def page(browser: Browser, page_file: Path) -> Iterator[Page]:
    opened = browser.open(page_file)
    yield opened
    opened.close()


@pytest.mark.parametrize(("screen", "width", "scheme"), SCREENS)
def test_every_screen(screen: str, width: int, scheme: str, browser: Browser, page_file: Path, tmp_path: Path) -> None:
    """Screenshots go to the folder that PRUNELAB_SCREENSHOTS names, where somebody wants to look at them."""
    looked_at(browser, page_file, f"report_{screen}", width, scheme, tmp_path, texts=1000)


@pytest.mark.parametrize(("screen", "width"), [("wide", 1280), ("phone", 390)])
def test_a_real_studys_page(
    screen: str, width: int, browser: Browser, command: Callable[..., Ran], shared: Path, tmp_path: Path
) -> None:
    """Of a trained model and a real text."""
    text = shared / "bench" / "tinystories_sample.txt"
    calibration = ["--calibration", text, "--samples", 8, "--sequence-length", 64]
    grid = ["--method", "shortgpt", "--method", "flap", "--ratio", 0.2, "--benchmark", f"text:{text}"]
    ran = command("study", "--model", shared / "models" / "stories260K", *grid, *calibration, "--out", tmp_path / "run")
    assert ran.code == 0, ran.err
    looked_at(browser, tmp_path / "run/report/index.html", f"stories260K_{screen}", width, "light", tmp_path, texts=200)


def looked_at(browser: Browser, file: Path, name: str, width: int, scheme: str, folder: Path, texts: int) -> None:
    """Take a screenshot, and check what every page must do on every screen; `texts` are in it at least."""
    opened = browser.open(file, width=width, scheme=scheme)
    image = opened.screenshot(Path(os.environ.get("PRUNELAB_SCREENSHOTS", folder)) / f"{name}_{scheme}.png")
    assert image.startswith(b"\x89PNG")
    assert len(image) > 20_000, "a page without anything on it is smaller"
    assert opened.run(OVERLONG) == []
    assert opened.run("document.documentElement.scrollWidth") == width, "nothing has to be scrolled sideways"
    found = opened.run(CONTRAST)
    assert found["count"] > texts
    assert found["low"] == []
    assert opened.complaints == []
    assert opened.requests == [file.resolve().as_uri()], "no request leaves the page"
    opened.close()


def test_contrast_is_told(page: Page) -> None:
    """The measure itself: black on white is 21, and a grey that is too light is found."""
    page.run('document.querySelector("h1").style.color = "#bbbbbb"')
    low = page.run(CONTRAST)["low"]
    assert len(low) == 1
    assert low[0].startswith('H1 "')
    assert low[0].endswith("of 3")


def test_a_request_and_an_error_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.error('no'); missing()</script><img src='http://127.0.0.1:9/x.png'>")
    opened = browser.open(bad)
    assert any("no" in one for one in opened.complaints)
    assert any("missing is not defined" in one for one in opened.complaints)
    assert "http://127.0.0.1:9/x.png" in opened.requests
    opened.close()


def test_every_figure_has_a_text_alternative_and_its_numbers(page: Page) -> None:
    figures = page.run("document.querySelectorAll('.chart svg:not(.swatch)').length")
    assert figures > 20
    without = "[...document.querySelectorAll('.chart svg:not(.swatch)')].filter(one => !['img', 'group'].includes("
    without += "one.getAttribute('role')) || (one.getAttribute('aria-label') || '').length < 20).length"
    assert page.run(without) == 0
    assert page.run("[...document.querySelectorAll('.chart')].filter(c => !c.querySelector('table')).length") == 0
    assert page.run("document.querySelectorAll('img').length") == 0
    levels = page.run("[...document.querySelectorAll('h1,h2,h3,h4')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), "no level is left out"


def column(page: Page, table: str, number: int) -> list[str]:
    script = f"[...document.querySelector('#table-{table}').tBodies[0].rows].filter(r => r.checkVisibility())"
    found: list[str] = page.run(f"{script}.map(r => r.cells[{number}].dataset.v ?? r.cells[{number}].textContent)")
    return [text.strip().rstrip("*") for text in found]


def test_tables_sort_by_number_and_by_name(page: Page) -> None:
    heads = page.run("[...document.querySelector('#table-main').tHead.rows[0].cells].map(c => c.textContent)")
    place = next(i for i, name in enumerate(heads) if name.startswith("arc_easy"))
    click = "document.querySelector('#table-main').tHead.rows[0].cells[{}].querySelector('button').click()"
    before = column(page, "main", place)
    page.run(click.format(place))
    up = column(page, "main", place)
    assert list(map(float, up)) == sorted(map(float, before)) != list(map(float, before))
    page.run(click.format(place))
    assert list(map(float, column(page, "main", place))) == sorted(map(float, before), reverse=True)
    sort = f"document.querySelector('#table-main').tHead.rows[0].cells[{place}].getAttribute('aria-sort')"
    assert page.run(sort) == "descending"
    page.run(click.format(1))
    assert column(page, "main", 1) == sorted(column(page, "main", 1))


def test_baselines_and_models_can_be_hidden(page: Page) -> None:
    shown = column(page, "main", 1)
    assert not any("random" in cut for cut in shown)
    page.run("document.querySelector('#results input.baselines').click()")
    assert sum("random_depth" in cut for cut in column(page, "main", 1)) == 2 * 2
    page.run("(() => { const s = document.getElementById('model'); s.value = 'other-8B'; "
             "s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert set(column(page, "main", 0)) == {"other-8B"}
    assert page.run("document.querySelectorAll('.brief:not(.other-model)').length") == 1


def test_pointing_at_a_cell_tells_its_plan_and_command(page: Page) -> None:
    point = "document.querySelector('#figure-frontier_speed .s-depth .point')"
    page.run(f"{point}.scrollIntoView({{block: 'center'}})")
    page.settle()
    box = page.run(
        f"(() => {{ const b = {point}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()"
    )
    assert page.run("document.getElementById('tip').hidden")
    page.pointer_at(*box)
    page.settle()
    tip = page.run("document.getElementById('tip').textContent")
    assert not page.run("document.getElementById('tip').hidden")
    assert "LLaMA-3-8B, shortgpt 10%" in tip
    assert "plan " in tip
    assert "prunelab prune LLaMA-3-8B --method shortgpt --ratio 0.1" in tip
    page.pointer_at(2, 2)
    page.settle()
    assert page.run("document.getElementById('tip').hidden")


def test_points_are_reached_by_keyboard(page: Page) -> None:
    page.run("document.querySelector('#figure-frontier_speed .point[tabindex=\"0\"]').focus()")
    first = page.run("document.getElementById('tip').textContent")
    page.key("ArrowRight")
    assert page.run("document.getElementById('tip').textContent") != first
    page.key("Escape")
    assert page.run("document.getElementById('tip').hidden")


def test_it_can_be_printed(page: Page, tmp_path: Path) -> None:
    pdf = page.printed(tmp_path / "report.pdf")
    assert pdf.startswith(b"%PDF")
    assert page.run("[...document.querySelectorAll('details')].every(one => one.open)"), "paper cannot be unfolded"
