"""The app as a visitor meets it, in the system's Chromium."""

import json
import re
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from kit.data import toy_samples
from kit.methods import FmaWsss

WEIGHT = "['navigation', 'resource'].flatMap(kind => performance.getEntriesByType(kind)).reduce((sum, one) => sum + one.transferSize, 0)"
# What stands beyond the right edge, where nothing scrolls: the page clips it.
CUT_OFF = """() => [...document.querySelectorAll('button, input, p, img, figure, label, .block')]
  .filter(part => part.checkVisibility() && !part.closest('.kit-gallery, .kit-rows, .kit-table, .wrap-inner, .toast-wrap'))
  .filter(part => part.getBoundingClientRect().right > innerWidth + 1).map(part => part.outerHTML.slice(0, 80))"""
AXE = Path(__file__).parent / "data" / "axe.min.js"  # axe-core 4.14.1 from npm, MPL-2.0


@pytest.fixture
def browser(chromium):
    return chromium


def visit(browser, server, width: int, height: int, query: str = ""):
    """The page after its first scene is refined, with what it complained about and what it asked for.

    Another address is another visit: leaving a page that still listens is an error in the page that is left.
    """
    page = browser.new_page(viewport={"width": width, "height": height})
    page.complaints, page.asked = [], set()
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.add(request.url))
    page.goto(server.url + query)
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


def settled(page, old: str) -> None:
    """Wait until no picture of the strip is the old one, and the refiner has finished."""
    page.wait_for_function("old => ![...document.querySelectorAll('.kit-strip img')].some(image => image.src === old)", arg=old)
    refined(page)


def typed(page, label: str, value: str) -> None:
    page.get_by_label(f"number input for {label}").locator("visible=true").fill(value)
    page.get_by_label(f"number input for {label}").locator("visible=true").press("Enter")


def test_a_visit(browser, server, tmp_path):
    page = visit(browser, server, 1440, 900)
    strip = page.locator(".kit-strip figure")
    assert strip.count() == 6
    for part in (page.locator(".kit-sentence"), page.get_by_label("Background words"), page.locator(".kit-legend"), *strip.all()):
        box = part.bounding_box()  # all of it on the first screen
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900, part
    assert "".join(page.locator(".kit-sentence").inner_text().split()) == "“acleanorigamiboat.”against22backgroundwords"
    said = [strip.nth(number).locator(".kit-story").inner_text() for number in (1, 2, 3)]
    assert (
        said[0].startswith("finds 49 % of the boat") and said[1].startswith("fills and leaks: ") and said[2].startswith("fills and trims: ")
    )
    page.wait_for_function(f"{WEIGHT} > 3e6")  # the stream of answers has ended
    assert page.evaluate(WEIGHT) <= 4_000_000
    first = mask(page)

    page.locator(".kit-thumb").nth(2).click()
    page.wait_for_function(
        "old => document.querySelectorAll('.kit-strip img')[0].src !== old", arg=strip.nth(0).locator("img").get_attribute("src")
    )
    refined(page)
    chosen = mask(page)
    assert chosen != first

    calls = server.clip.calls
    typed(page, "Background power", "6")
    settled(page, chosen)
    assert mask(page) != chosen and server.clip.calls == calls

    page.screenshot(path=tmp_path / "explore.png")
    nothing_is_wrong(page, server)


def test_one_stage_is_large_wiped_and_read(browser, server, tmp_path):
    page = visit(browser, server, 1440, 900)
    page.locator(".kit-enlarge").nth(1).click()
    large, reading = page.locator(".kit-large"), page.locator(".kit-reading")
    box = large.locator(".kit-enlarge").bounding_box()
    assert large.get_attribute("data-stage") == "cam" and box["height"] > 2 * page.locator(".kit-enlarge").first.bounding_box()["height"]
    view = server.page.studio.view(next(iter(visitors(server))))
    plane = view.result.stages["cam"][0]
    row, column = divmod(int(plane.argmax()), plane.shape[1])  # the hottest pixel
    page.mouse.move(box["x"] + box["width"] * (column + 0.5) / plane.shape[1], box["y"] + box["height"] * (row + 0.5) / plane.shape[0])
    page.wait_for_function("document.querySelector('.kit-reading').innerText.startsWith('softmax Grad-CAM: boat ')")
    assert float(reading.inner_text().split()[-1]) > 0.9
    page.get_by_label("wipe between the two stages").fill("0")  # the other one, everywhere
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.78)
    page.wait_for_function("document.querySelector('.kit-reading').innerText === 'Truth: boat'")
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.1)
    page.wait_for_function("document.querySelector('.kit-reading').innerText === 'Truth: background'")
    page.screenshot(path=tmp_path / "large.png")
    large.locator(".kit-enlarge").focus()
    for stage in ("affinity", "refined", "Pseudo mask"):
        page.keyboard.press("ArrowRight")
        assert large.get_attribute("data-stage") == stage
    typed(page, "Background power", "3")  # it stays while a slider moves
    page.wait_for_function(
        "document.querySelectorAll('.kit-strip:has(.kit-large)').length && document.body.innerText.includes('Unlike the')"
    )
    refined(page)
    assert large.get_attribute("data-stage") == "Pseudo mask"
    large.locator(".kit-enlarge").focus()
    page.keyboard.press("Escape")
    assert large.count() == 0
    nothing_is_wrong(page, server)


def visitors(server) -> list[str]:
    """Those who have a view, the last one first."""
    return [visitor for visitor, name in reversed(server.page.studio.shelf._things) if name == "view"]


def test_a_link_opens_what_is_seen_and_every_setting_has_a_way_back(browser, server):
    page = visit(browser, server, 1280, 800, "?scene=2&class=sheep,horse&box_threshold=0.6&layers=[0,1]&background=grass,sky")
    differs = page.locator(".kit-differs")
    differs.get_by_text("Box threshold").wait_for()
    assert [chip.get_attribute("data-choose") for chip in differs.locator("button").all()] == ["background", "box_threshold", "layers", "*"]
    page.locator(".kit-sentence button", has_text="horse").click()
    page.locator(".kit-legend", has_text="heat of horse").wait_for()
    assert page.url.endswith("?scene=2&class=sheep%2Chorse&background=grass%2Csky&box_threshold=0.6&layers=%5B0%2C1%5D")
    page.get_by_text("Keep and restore").click()
    page.get_by_role("button", name="Make the files").click()
    with page.expect_download() as download:
        page.get_by_text("Settings JSON").click()
    told = json.loads(download.value.path().read_text())
    assert download.value.suggested_filename == "val-000002-clip-es-settings.json" and told["picture"] == "val-000002"
    assert told["classes"] == ["sheep", "horse"] and told["box_threshold"] == 0.6
    differs.locator("button", has_text="Box threshold").click()
    page.wait_for_function("!document.querySelector('.kit-differs').innerText.includes('Box threshold')")
    assert page.get_by_label("number input for Box threshold").locator("visible=true").input_value() == "0.2"
    assert not page.get_by_text("Settings JSON").is_visible()  # the files were of another view
    differs.locator("button", has_text="reset all").click()
    page.wait_for_function("!document.querySelector('.kit-differs')")
    assert page.url.endswith("?scene=2&class=sheep%2Chorse")

    for value in ("99", "", "-3"):  # what cannot be is refused in words, in the toast alone, and the control shows what is drawn
        typed(page, "Box threshold", value)
        page.locator(".toast-body", has_text="That does not work").wait_for()
        page.wait_for_function("document.querySelector('[aria-label=\"number input for Box threshold\"]').value === '0.2'")
    words = page.locator(".toast-body").inner_text()
    assert "expected box_threshold to be a number from 0 to 1, got 99" in words and "Box threshold is empty" in words
    assert page.locator("[data-testid=status-tracker] .error:visible").count() == 0
    assert not page.complaints
    page = visit(browser, server, 1280, 800, "?scene=3&colour=red")
    page.locator(".toast-body", has_text="unknown setting colour").wait_for()
    assert not page.complaints


def test_axe_finds_no_serious_fault_and_keys_reach_everything(browser, server):
    """axe-core on every page with all that folds opened, in light and in dark; tabs by arrow keys; chips by their names."""
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
        page.goto(server.url)
        refined(page)
        page.add_script_tag(path=AXE)
        page.get_by_role("tab", name="Explore").focus()
        for title in server.pages:
            assert page.get_by_role("tab", name=title, exact=True).get_attribute("aria-selected") == "true"
            page.evaluate("document.querySelectorAll('button.label-wrap:not(.open)').forEach(fold => fold.offsetParent && fold.click())")
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
            serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
            assert not serious, [(scheme, title, fault["id"], [node["html"] for node in fault["nodes"]][:3]) for fault in serious]
            page.keyboard.press("ArrowRight")
        assert page.get_by_role("tab", name="Explore").get_attribute("aria-selected") == "true"  # once around
    remover = page.get_by_role("button", name="Remove sky", exact=True)
    remover.focus()
    page.keyboard.press("Enter")
    page.get_by_text("against 21 background words").wait_for()
    page.get_by_role("button", name="cow on grass", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator(".kit-sentence button", has_text="cow").wait_for()


def test_prompts(browser, server, tmp_path):
    page = visit(browser, server, 1280, 800)
    calls = server.clip.calls
    page.get_by_role("tab", name="Prompts").click()
    page.get_by_text("Open in Explore: boat").wait_for()
    page.get_by_text("templates over the picture with boat.").wait_for(timeout=30_000)  # by itself
    assert page.locator(".kit-pair img").count() == 2
    first = page.locator(".kit-table .virtual-row").first
    best = first.inner_text()
    heading = page.locator(".kit-table th", has_text="mIoU %").first
    heading.hover()
    heading.get_by_label("Open cell menu").click()
    page.get_by_role("menuitem", name="Sort ascending").click()
    page.wait_for_function("old => document.querySelector('.kit-table .virtual-row').innerText !== old", arg=best)
    template = first.inner_text().splitlines()[0]

    page.get_by_role("tab", name="Words", exact=True).click()
    words = page.locator(".kit-words li")
    before = words.count()
    own = page.get_by_label("Your own words, and decoys")
    own.fill("giraffe")
    own.press("Enter")
    page.get_by_text("unknown to the tiny model: 'giraffe'").wait_for()
    own.press("Tab")  # closes the list
    assert words.count() == before + 1 and server.clip.calls == calls

    page.get_by_role("tab", name="Templates").click()
    first.locator(".cell-wrap").first.click()
    page.wait_for_function("text => [...document.querySelectorAll('input')].filter(field => field.value === text).length", arg=template)
    shown = mask(page)
    page.get_by_role("button", name="Use this in Explore").click()
    settled(page, shown)
    assert page.locator(".kit-strip").first.is_visible() and server.clip.calls == calls
    assert template.replace("{}", "boat") in page.locator(".kit-heats").first.inner_text()
    page.screenshot(path=tmp_path / "used.png")
    nothing_is_wrong(page, server)


def test_stop_in_the_browser_keeps_the_rows(browser, server):
    page = visit(browser, server, 1280, 800)
    page.get_by_role("tab", name="Prompts").click()
    page.get_by_text("drawn scenes of the val split").click()
    page.get_by_role("button", name="Measure", exact=True).click()
    page.locator(".kit-told", has_text=re.compile(r"^[3-9] of 63 templates over 20 scenes")).wait_for(timeout=60_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("templates are measured, and stay").wait_for()
    assert page.locator(".kit-table .virtual-row").count() > 1
    nothing_is_wrong(page, server)


def test_masks_tell_their_votes(browser, server, tmp_path):
    """The other method: its strip, a region that is pointed at, and back to the first with everything in its place."""
    page = visit(browser, server, 1280, 900)
    before, calls = mask(page), server.clip.calls
    page.get_by_label("CLIP + SAM (FMA-WSSS)", exact=True).check()
    page.locator(".kit-many").wait_for(timeout=30_000)
    page.get_by_role("tab", name="Masks").click()
    page.locator(".kit-regions path").first.wait_for(timeout=30_000)
    wholes = page.locator(".kit-regions path").count()
    page.get_by_label("part of a part").check()
    page.wait_for_function("before => document.querySelectorAll('.kit-regions path').length > before", arg=wholes)
    region = page.locator(".kit-regions g").last  # the smallest, above all others
    assert not region.locator("text").is_visible()
    region.locator("path").hover(force=True)
    region.locator("text").wait_for()
    assert region.locator("text").text_content().startswith("part of a part: ")

    seeds = page.locator(".kit-many figure", has_text="coarse seeds").locator("img").get_attribute("src")
    page.locator(".kit-panel button.label-wrap:visible", has_text="Coarse").click()
    power = page.get_by_label("number input for Vote: background power").locator("visible=true")
    power.fill("3")
    power.press("Enter")
    page.wait_for_function("old => ![...document.querySelectorAll('.kit-many img')].some(image => image.src === old)", arg=seeds)
    assert server.clip.calls == calls  # the picture was encoded already
    page.screenshot(path=tmp_path / "masks.png")
    page.get_by_label("CLIP-ES", exact=True).check()
    page.wait_for_function("!document.querySelector('.kit-many')")
    refined(page)
    assert mask(page) == before
    nothing_is_wrong(page, server)


def test_learn(browser, server, tmp_path):
    """From the diagram over what can be watched, a pause and a look back to Stop, the judgement, the file, and its use in Explore."""
    page = visit(browser, server, 1280, 900)
    page.get_by_role("tab", name="Learn").click()
    start, pause, stop, skip = (
        page.get_by_role("button", name=name, exact=True).locator("visible=true") for name in ("Start", "Pause", "Stop", "Skip judging")
    )
    assert all(button.is_disabled() for button in (pause, stop, skip)) and page.locator(".kit-flow:visible").count() == 1
    page.get_by_text("nothing is recorded of its steps").wait_for()
    page.get_by_label("number input for Steps").fill("900")
    page.get_by_label("number input for Steps").press("Enter")
    page.get_by_label("number input for Scenes to judge by").fill("4")
    page.get_by_label("number input for Scenes to judge by").press("Enter")
    start.click()
    page.get_by_text("Part 3 of 3").wait_for(timeout=60_000)
    watched = page.locator(".kit-watch img")
    watched.first.wait_for(timeout=30_000)
    first = watched.nth(1).get_attribute("src")
    page.wait_for_function("old => document.querySelectorAll('.kit-watch img')[1].src !== old", arg=first, timeout=30_000)
    assert (
        page.locator(".kit-plot:visible canvas, .kit-plot:visible svg.marks").count() == 1 and page.locator(".kit-said span").count() == 16
    )
    assert start.is_disabled() and skip.is_disabled()
    pause.click()
    page.get_by_text("Paused. Learning classification prompts").wait_for(timeout=30_000)
    page.wait_for_function("!document.querySelector('.kit-watch').innerText.includes('now')")
    back, calls = page.get_by_label("number input for Back through the steps"), server.clip.calls
    held = watched.nth(1).get_attribute("src")
    back.fill("0")
    back.press("Enter")
    page.locator(".kit-watch", has_text="before learning").wait_for()
    assert watched.nth(1).get_attribute("src") != held and server.clip.calls == calls
    page.get_by_role("button", name="Resume", exact=True).click()
    page.get_by_text("Part 3 of 3").wait_for(timeout=30_000)

    page.get_by_role("tab", name="Explore").click()  # which stays usable meanwhile
    before = mask(page)
    page.locator(".kit-thumb").nth(2).click()
    page.wait_for_function("old => ![...document.querySelectorAll('.kit-strip img')].some(image => image.src === old)", arg=before)
    page.get_by_role("tab", name="Learn").click()
    stop.click()
    page.get_by_text("Stopped after").wait_for(timeout=30_000)
    page.get_by_text("the masks of 4 other scenes").first.wait_for(timeout=60_000)
    assert page.get_by_text("this says nothing of photographs").first.is_visible()
    assert not start.is_disabled() and stop.is_disabled() and skip.is_disabled()
    with page.expect_download() as download:
        page.get_by_text("Save the prompts").click()
    assert len(FmaWsss(server.clip, learned=download.value.path()).learned.classes) == 20
    page.screenshot(path=tmp_path / "learned.png", full_page=True)

    page.get_by_role("button", name="Use in Explore", exact=True).locator("visible=true").click()
    page.locator(".kit-strip:not(.kit-watch) figure", has_text="coarse seeds").wait_for(timeout=30_000)
    assert page.get_by_label("learned here, on the Learn page").is_checked()
    assert page.locator(".kit-strip figure", has_text="fine seeds").count() == 0  # these were not learned
    nothing_is_wrong(page, server)


def test_batch(browser, server, tmp_path):
    """Start, Stop, the zip of what is done; a second Start while it runs gets one sentence; with the model's own suggestions to the end."""
    files = []
    for number, sample in enumerate(toy_samples("val", 12, size=200)):
        files.append(tmp_path / f"scene {number:02}.png")
        Image.fromarray(sample.image).save(files[-1])
    page = visit(browser, server, 1280, 800)
    page.get_by_role("tab", name="Batch").click()
    page.get_by_text("masks of photographs mean little").wait_for()
    start, stop = (page.get_by_role("button", name=name, exact=True) for name in ("Start", "Stop"))
    start.click()
    page.get_by_text("choose pictures, or one zip of pictures, first").wait_for()

    page.locator("input[type=file][multiple]").set_input_files(files)
    page.get_by_text("scene 11").first.wait_for()
    page.get_by_label("the same for all pictures").check()
    classes = page.get_by_label("Classes of all pictures")
    classes.fill("giraffe")
    classes.press("Enter")
    classes.press("Tab")  # closes the list
    start.click()
    page.locator(".kit-latest img").first.wait_for(timeout=30_000)
    with server.page.studio.lock:  # no further picture meanwhile, however slow the browser is
        start.click()
        page.get_by_text("your batch is still running").wait_for()
        stop.click()
    page.get_by_text("Stopped after").wait_for()
    assert page.locator(".kit-rows td", has_text="not done").count() > 0
    with page.expect_download() as download:
        page.get_by_text("Download the zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        done = [name for name in archive.namelist() if name.startswith("masks/")]
        assert done and len(done) == page.locator("tr", has_text="done").count() - page.locator("tr", has_text="not done").count()
        assert {"settings.json", "report.csv", "manifest.json"} < set(archive.namelist())

    page.get_by_label("as the model suggests for each").check()
    start.click()
    page.get_by_text("12 files read: 12 done").wait_for(timeout=60_000)
    assert page.locator(".kit-latest img").count() == 6 and "%" in page.locator(".kit-rows").inner_text()
    page.screenshot(path=tmp_path / "batch.png")
    page.set_viewport_size({"width": 390, "height": 844})
    assert not page.evaluate(CUT_OFF)
    page.set_viewport_size({"width": 1280, "height": 800})

    page.get_by_role("button", name="Try four drawn scenes").click()
    page.get_by_text("From a CSV beside the pictures").wait_for()
    start.click()
    page.get_by_text("5 files read: 4 done, 1 ignored").wait_for(timeout=60_000)
    page.get_by_role("button", name="enlarge scene 02: horse, sheep").first.focus()
    page.keyboard.press("Enter")
    large = page.locator(".kit-popup:popover-open")
    large.locator("img").wait_for()
    page.wait_for_function("document.querySelector('.kit-popup:popover-open img').naturalWidth === 320")
    page.screenshot(path=tmp_path / "enlarged.png")
    page.keyboard.press("Escape")
    assert large.count() == 0
    page.get_by_role("button", name="Open in Explore: scene 02.png").click()
    page.locator(".kit-sentence button", has_text="sheep").wait_for()
    refined(page)
    assert page.get_by_role("tab", name="Explore").get_attribute("aria-selected") == "true" and page.url == server.url
    nothing_is_wrong(page, server)


def test_a_method_of_ones_own_is_on_every_page(browser, server, own, tmp_path):
    """The file tests/own_method.py, which no line of the kit knows: looked at, learned, used, and asked for a batch of pictures."""
    page = visit(browser, server, 1280, 900)
    page.get_by_label(own.title, exact=True).locator("visible=true").check()
    page.locator(".kit-strip:not(.kit-watch) figure", has_text="+ Otsu").wait_for(timeout=30_000)
    refined(page)
    before, calls = mask(page), server.clip.calls
    strictness = page.get_by_label("number input for Strictness").locator("visible=true")
    strictness.fill("1.7")
    strictness.press("Enter")
    page.wait_for_function("old => ![...document.querySelectorAll('.kit-strip img')].some(image => image.src === old)", arg=before)
    assert server.clip.calls == calls

    page.get_by_role("tab", name="Learn").click()
    page.get_by_label(f"{own.title}: texts").check()
    page.get_by_label("number input for Scenes to judge by").fill("4")
    page.get_by_label("number input for Scenes to judge by").press("Enter")
    page.get_by_role("button", name="Start", exact=True).locator("visible=true").click()
    page.get_by_text("the masks of 4 other scenes").first.wait_for(timeout=60_000)
    page.screenshot(path=tmp_path / "own learned.png")
    page.get_by_role("button", name="Use in Explore", exact=True).locator("visible=true").click()
    page.locator(".kit-strip:not(.kit-watch) figure", has_text="+ Otsu").wait_for(timeout=30_000)
    refined(page)
    assert page.get_by_label("learned here, on the Learn page").locator("visible=true").is_checked()
    page.screenshot(path=tmp_path / "own explore.png")

    sample = next(sample for sample in toy_samples("val", 4, size=200) if sample.names)
    Image.fromarray(sample.image).save(tmp_path / "scene.png")
    page.get_by_role("tab", name="Batch").click()
    page.get_by_text(f"{own.title} with the settings of Explore").wait_for()
    page.locator("input[type=file][multiple]").set_input_files(tmp_path / "scene.png")
    page.get_by_text("scene.png").first.wait_for()
    page.get_by_label("as the model suggests for each").check()
    page.get_by_role("button", name="Start", exact=True).locator("visible=true").click()
    page.get_by_text("1 file read: 1 done").wait_for(timeout=60_000)
    with page.expect_download() as download:
        page.get_by_text("Download the zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        made_with = json.loads(archive.read("settings.json"))
    assert made_with["method"] == own.name and made_with["strictness"] == 1.7
    page.screenshot(path=tmp_path / "own batch.png")
    nothing_is_wrong(page, server)


def test_two_visitors_do_not_meet(browser, server):
    """Each has a picture and settings; what one changes leaves the other's page alone."""
    first, second = visit(browser, server, 1280, 800), visit(browser, server, 1280, 800)  # each page has a context of its own
    before = mask(second)
    second.locator(".kit-thumb").nth(2).click()
    settled(second, before)
    theirs = mask(second)

    first.get_by_label("number input for Background power").locator("visible=true").fill("6")
    first.get_by_label("number input for Background power").locator("visible=true").press("Enter")
    settled(first, before)
    assert mask(first) not in (before, theirs)  # the first scene with the new setting
    assert mask(second) == theirs
    assert second.get_by_label("number input for Background power").locator("visible=true").input_value() == "1"
    nothing_is_wrong(first, server)
    nothing_is_wrong(second, server)


def test_a_typed_class_is_asked_for(browser, server):
    page = visit(browser, server, 1280, 800)
    before = mask(page)
    classes = page.get_by_label("Classes", exact=True)
    classes.fill("giraffe")
    classes.press("Enter")
    page.get_by_text("'giraffe' is unknown to the tiny model").first.wait_for()
    refined(page)
    assert page.locator(".kit-heats", has_text="giraffe").count() == 1
    assert mask(page) != before
    nothing_is_wrong(page, server)


def nothing_is_wrong(page, server) -> None:
    """No complaint in the console, nothing asked of another machine, a text beside every image."""
    assert not page.complaints
    outside = {url for url in page.asked if not url.startswith((server.url, "data:", "blob:"))}
    assert not outside
    images = page.locator("img")
    assert all(images.nth(index).get_attribute("alt") is not None for index in range(images.count()))


def test_it_fits_on_a_phone(browser, server):
    page = visit(browser, server, 390, 844)
    assert not page.evaluate(CUT_OFF)
    order = (".kit-gallery", ".kit-strip", ".kit-sentence", ".kit-controls")
    tops = [page.locator(part).first.bounding_box()["y"] for part in order]
    assert tops == sorted(tops)
    before = mask(page)
    page.locator(".kit-thumb").nth(2).click()
    settled(page, before)
    page.wait_for_function(
        "document.querySelector('.kit-strip img').getBoundingClientRect().bottom <= innerHeight"
    )  # the result is in view
    page.get_by_role("tab", name="Prompts").click()
    page.get_by_role("button", name="Measure", exact=True).click()
    page.locator(".kit-table .virtual-row").first.wait_for()
    assert not page.evaluate(CUT_OFF)
    for tab in ("Batch", "Learn"):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("button", name="Start", exact=True).locator("visible=true").wait_for()
        assert not page.evaluate(CUT_OFF)
    page.get_by_role("tab", name="Explore").click()
    page.get_by_label("CLIP + SAM (FMA-WSSS)", exact=True).check()
    page.locator(".kit-many").wait_for(timeout=30_000)
    page.get_by_role("tab", name="Masks").click()
    page.locator(".kit-regions path").first.wait_for(timeout=30_000)
    assert not page.evaluate(CUT_OFF)
