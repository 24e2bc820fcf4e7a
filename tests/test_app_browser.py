"""The app as a visitor meets it, in the system's Chromium."""

from pathlib import Path

import pytest

CHROMIUM = "/usr/bin/chromium"
playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"the browser test needs {CHROMIUM}")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


def visit(browser, server, width: int, height: int):
    """The page after its first scene is refined, with what it complained about and what it asked for."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.complaints, page.asked = [], set()
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.add(request.url))
    page.goto(server.url)
    refined(page)
    return page


def refined(page) -> None:
    """Wait until the strip is there and the refiner has finished."""
    page.wait_for_function(
        "() => { const s = document.querySelector('.kit-strip'); return s && s.querySelector('img') && !s.innerText.includes('refining') }",
        timeout=30_000,
    )


def mask(page) -> str:
    return page.locator(".kit-strip figure", has_text="Pseudo mask").locator("img").get_attribute("src")


def test_a_visit(browser, server, tmp_path):
    page = visit(browser, server, 1280, 800)
    strip = page.locator(".kit-strip figure")
    assert strip.count() == 6
    for figure in (strip.nth(0), strip.nth(1), strip.nth(4)):  # picture, heat and mask on the first screen
        box = figure.locator("img").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 800
    first = mask(page)

    page.locator(".kit-gallery button").nth(2).click()
    page.wait_for_function(
        "old => document.querySelectorAll('.kit-strip img')[0].src !== old", arg=strip.nth(0).locator("img").get_attribute("src")
    )
    refined(page)
    chosen = mask(page)
    assert chosen != first

    calls = server.clip.calls
    page.locator(".kit-panel button.label-wrap", has_text="Map").click()
    page.get_by_label("number input for Background power").fill("6")
    page.get_by_label("number input for Background power").press("Enter")
    page.wait_for_function("old => ![...document.querySelectorAll('.kit-strip img')].some(image => image.src === old)", arg=chosen)
    refined(page)
    assert mask(page) != chosen and server.clip.calls == calls

    page.screenshot(path=tmp_path / "explore.png")
    assert not page.complaints
    outside = {url for url in page.asked if not url.startswith((server.url, "data:", "blob:"))}
    assert not outside
    images = page.locator("img")
    assert all(images.nth(index).get_attribute("alt") is not None for index in range(images.count()))


def test_it_fits_on_a_phone(browser, server):
    page = visit(browser, server, 390, 844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
