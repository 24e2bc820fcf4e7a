"""What surrounds every page: title, badges, theme and style. Everything comes from this machine: no fonts or scripts of others."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from kit.encode import Clip
from kit.learned import Learned
from kit.method import Method
from kit.methods import METHODS
from kit.propose import SUPERPIXELS
from kit.ui import PAGES
from kit.ui.bundle import PACKED_BYTES
from kit.ui.session import Studio

TITLE = "From words to masks"
ASSETS = Path(__file__).parent / "assets"
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
KEEP_FILES = (600, 3600)  # every ten minutes, files of more than an hour ago are deleted

THEME = gr.themes.Soft(
    primary_hue="teal",
    neutral_hue="slate",
    radius_size="md",
    spacing_size="sm",
    text_size="sm",
    font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"),
    font_mono=("ui-monospace", "Menlo", "Consolas", "monospace"),
).set(  # at least 4.5 : 1 everywhere
    body_background_fill="*neutral_50",
    color_accent="*primary_700",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    block_title_text_color="*primary_800",
    block_title_text_color_dark="*primary_100",
    block_title_background_fill_dark="*primary_900",
    block_label_background_fill_dark="*primary_900",
    block_label_text_color="*neutral_700",
    block_label_text_color_dark="*neutral_200",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_text_color="white",
    checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_background_fill_selected_dark="*primary_700",
    checkbox_label_text_color_selected="white",
    input_placeholder_color="*neutral_600",
    input_placeholder_color_dark="*neutral_300",
    link_text_color="*primary_800",
    link_text_color_dark="*primary_300",
)

CSS = """
/* clip: with hidden, the panel would not stick */
.gradio-container { max-width: min(1480px, 100vw) !important; margin: 0 auto; overflow: clip !important; }
.dark { --color-accent: var(--primary-400); }
.kit-head { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; }
.gradio-container main { padding-top: 0 !important; }
.kit-head h1 { font-size: 1.35rem; font-weight: 650; margin: 0; }
.kit-head p { margin: 0; color: var(--body-text-color-subdued); }
.kit-badge { padding: 1px 9px; border: 1px solid var(--border-color-primary); border-radius: 99px; font-size: .8rem; white-space: nowrap; }
.kit-strip { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 8px; }
.kit-heats { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 10px; }
.kit-pair { grid-template-columns: repeat(2, minmax(0, 260px)); }
.kit-small { grid-template-columns: repeat(auto-fill, minmax(145px, 1fr)); }
.kit-strip figure, .kit-heats figure, .kit-patch figure { margin: 0; min-width: 0; }
.kit-strip img, .kit-strip .kit-empty {
  width: 100%; height: min(246px, 21.5vh); object-fit: contain; border-radius: 8px;
  background: var(--background-fill-secondary);
}
.kit-heats img, .kit-patch img { width: 100%; max-height: 340px; object-fit: contain; border-radius: 8px; }
.kit-strip .kit-empty {
  display: flex; align-items: center; justify-content: center; border: 1px dashed var(--border-color-primary);
  color: var(--body-text-color-subdued); padding: 8px;
}
.kit-strip figcaption, .kit-heats figcaption, .kit-patch figcaption {
  display: flex; flex-wrap: wrap; gap: 0 8px; padding: 2px 2px 4px; font-size: .84rem; line-height: 1.35;
}
.kit-strip figcaption span, .kit-heats figcaption span, .kit-patch figcaption span {
  color: var(--body-text-color-subdued); overflow-wrap: anywhere;
}
.kit-busy img { opacity: .6; }
.kit-told { display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: center; font-size: .9rem; min-height: 1.6em; }
.kit-told progress { width: 160px; height: 8px; border: 0; border-radius: 4px; overflow: hidden; background: var(--border-color-primary); }
.kit-told progress::-webkit-progress-bar { background: var(--border-color-primary); }
.kit-told progress::-webkit-progress-value { background: var(--color-accent); }
.kit-told progress::-moz-progress-bar { background: var(--color-accent); }
.kit-told img { height: 56px; border-radius: 6px; }
.kit-words li { grid-template-columns: minmax(7em, 12em) minmax(60px, 1fr) 4.5em minmax(0, 13em) !important; padding: 1px 0; }
.kit-mark { color: var(--body-text-color-subdued); font-size: .8rem; }
.kit-many { grid-template-columns: repeat(5, minmax(0, 1fr)); }
.kit-many img, .kit-many .kit-empty { height: min(190px, 14.5vh); }
.kit-many :is(figcaption, .kit-story) { font-size: .78rem; }
.kit-regions { margin: 0; max-width: 620px; }
.kit-regions svg { width: 100%; height: auto; max-height: 74vh; color: var(--body-text-color); }
.kit-regions path {
  fill: #fff; fill-opacity: 0; fill-rule: evenodd; pointer-events: all;
  stroke: #fff; stroke-opacity: .75; stroke-width: 1; vector-effect: non-scaling-stroke;
}
.kit-regions path[style] { fill-opacity: .5; }
.kit-regions text { display: none; fill: currentColor; font-weight: 600; }
.kit-regions g:hover path { fill-opacity: .8; stroke: #000; stroke-opacity: 1; stroke-width: 2; }
.kit-regions g:hover text { display: inline; }
.kit-regions figcaption { display: flex; flex-wrap: wrap; gap: 0 8px; font-size: .84rem; }
.kit-regions figcaption span, .kit-said { display: flex; flex-wrap: wrap; gap: 3px 6px; font-size: .86rem; }
.kit-said span { padding: 0 7px; border: 1px solid var(--border-color-primary); border-radius: 99px; white-space: nowrap; }
.kit-fine { margin: 0; font-size: .82rem; line-height: 1.4; color: var(--body-text-color-subdued); }
.kit-rows { max-height: 420px; overflow: auto; contain: inline-size; border: 1px solid var(--border-color-primary); border-radius: 8px; }
.kit-rows table { width: 100%; border: 0 !important; border-collapse: collapse; font-size: .84rem; line-height: 1.35; }
.kit-rows th { position: sticky; top: 0; text-align: left; white-space: nowrap; background: var(--background-fill-secondary); }
.kit-rows tr { border: 0 !important; }
.kit-rows th, .kit-rows td { padding: 3px 8px; border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; }
.kit-rows td { min-width: 7em; overflow-wrap: anywhere; }
.kit-rows td:first-child { min-width: 11em; }
.kit-rows td:last-child { min-width: 0; }
.kit-latest { grid-template-columns: repeat(6, minmax(0, 1fr)); }
.kit-latest b { overflow-wrap: anywhere; }
.kit-latest button { cursor: zoom-in; }
.kit-chips { display: inline-flex; flex-wrap: wrap; gap: 3px 5px; }
.kit-tag { padding: 0 7px; border: 1px solid var(--border-color-primary); border-radius: 99px; font-size: .8rem; white-space: nowrap; }
.prose :is(.kit-do, .kit-link) { font-size: .84rem; font-weight: 400; box-shadow: none; }
.prose .kit-link { padding: 0; background: none; border: 0; }
.kit-link { color: var(--link-text-color); text-align: left; text-decoration: underline; overflow-wrap: anywhere; }
.kit-do { padding: 1px 9px; border: 1px solid var(--border-color-primary); border-radius: 6px; white-space: nowrap; }
.kit-popup {
  width: min(720px, 94vw); max-height: 96vh; margin: auto; padding: 12px; overflow: auto; border: 1px solid var(--border-color-primary);
  border-radius: 8px; background: var(--background-fill-primary); color: var(--body-text-color);
}
.kit-popup::backdrop { background: rgb(0 0 0 / .5); }
.kit-popup img { width: 100%; max-height: 74vh; margin: 0; object-fit: contain; }
.kit-notes { font-size: .88rem; line-height: 1.5; }
.kit-notes pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.kit-notes ul { margin: 0; padding-left: 1.1em; list-style: disc; }
.kit-notes .kit-warn { border-left: 3px solid #d97706; padding-left: 8px; margin: 2px 0; }
.kit-seconds { color: var(--body-text-color-subdued); }
.kit-flow { margin: 0 0 8px; font-size: .84rem; line-height: 1.35; color: var(--body-text-color); }
.kit-flow > div {
  display: grid; grid-template: "scenes one clip two loss" ". . up . back" "needs on learned . ." / 1fr auto 1fr auto 1fr; gap: 4px 6px;
  align-items: center; max-width: 760px;
}
.kit-box {
  display: flex; flex-direction: column; min-width: 0; height: 100%; padding: 4px 8px; overflow-wrap: anywhere;
  border: 1px solid var(--body-text-color); border-radius: 8px;
}
.kit-box.kit-frozen { border-style: dashed; }
.kit-box.kit-learned { border: 3px solid var(--color-accent); }
.kit-arrow { text-align: center; }
.kit-flow figcaption { padding-top: 4px; }
.kit-curve { margin: 4px 0 0; font-size: .84rem; max-width: 420px; }
.kit-curve svg { width: 100%; height: 60px; }
.kit-bars { list-style: none; margin: 0; padding: 0; font-size: .86rem; }
.kit-bars li { display: grid; grid-template-columns: 8em 1fr 2.6em; gap: 8px; align-items: center; }
.kit-bars li span { overflow-wrap: anywhere; }
meter { width: 100%; height: 10px; }
figcaption meter { width: 70px; }
.kit-panel > * { flex-shrink: 0; }
@media (min-width: 1000px) {
  .kit-panel {
    position: sticky; top: 4px; max-height: calc(100vh - 8px); overflow-y: auto; overflow-x: hidden;
    scrollbar-width: thin; flex-wrap: nowrap !important;
  }
}
.kit-gallery { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 4px; }
.kit-thumb { padding: 0; border: 2px solid transparent; border-radius: 8px; overflow: hidden; cursor: pointer; line-height: 0; }
.kit-thumb img { width: 100%; aspect-ratio: 1; object-fit: cover; margin: 0; }
.kit-thumb:hover { border-color: var(--color-accent); }
.kit-whatif { gap: 4px; }
.kit-whatif button { white-space: normal; padding: 4px 6px; }
.kit-prompt, .kit-result, .kit-answer { gap: 4px !important; }
.kit-prompt > .block:not(:has(.prose > *)) { display: none; }
.kit-prompt .row { gap: 8px !important; }
.kit-sentence { margin: 0; font-size: 1.15rem; line-height: 1.9; }
.prose .kit-sentence .kit-chip { margin: 0 1px; font-size: 1.05rem; }
.kit-sentence > span, .kit-differs > span { font-size: .86rem; color: var(--body-text-color-subdued); }
.kit-chip {
  display: inline-flex; gap: 6px; align-items: center; padding: 0 10px; border: 1px solid var(--border-color-primary); border-radius: 99px;
  background: var(--background-fill-primary); color: var(--body-text-color); cursor: pointer; line-height: 1.6;
}
.prose .kit-chip { font-size: .9rem; font-weight: 400; }
.prose .kit-chip[aria-pressed=true] { border: 2px solid var(--color-accent); font-weight: 650; }
.kit-chip i, .kit-legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; border: 1px solid #888; }
.kit-differs { display: flex; flex-wrap: wrap; gap: 4px 6px; align-items: center; margin: 0; font-size: .84rem; }
.kit-differs s { color: var(--body-text-color-subdued); }
.kit-sentence-of { flex: 8 1 300px !important; }
.kit-prompt .wrap-inner { max-height: 5.4em; overflow-y: auto; }
.kit-legend { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: center; font-size: .84rem; padding: 2px 0 6px; }
.kit-legend span { display: inline-flex; gap: 5px; align-items: center; }
.kit-legend .kit-bar { width: 110px; height: 12px; }
.kit-legend .kit-hatch { background: repeating-linear-gradient(135deg, #fff 0 2px, #282828 2px 4px); }
.kit-enlarge {
  position: relative; display: block; width: 100%; padding: 0; border: 0; background: none; cursor: zoom-in; line-height: 0;
}
.kit-why { position: relative; font-size: .8rem; }
.kit-why summary {
  display: inline-block; width: 1.5em; border: 1px solid var(--border-color-primary); border-radius: 99px; text-align: center;
  cursor: pointer; list-style: none;
}
.kit-why summary::-webkit-details-marker { display: none; }
.kit-why p {
  position: absolute; z-index: 20; left: 0; width: min(300px, 70vw); margin: 4px 0; padding: 8px 10px; border-radius: 8px;
  border: 1px solid var(--border-color-primary); background: var(--background-fill-primary); box-shadow: 0 4px 16px #0003;
}
.kit-story { flex-basis: 100%; margin: 0; font-size: .84rem; line-height: 1.3; }
.kit-strip .kit-large { grid-column: 1 / -1; order: -1; }
.kit-large .kit-enlarge { width: fit-content; max-width: 100%; margin: 0 auto; cursor: crosshair; }
.kit-strip .kit-large img { width: auto; height: min(64vh, 100vw); max-width: 100%; image-rendering: auto; }
.kit-strip .kit-large .kit-over { position: absolute; inset: 0; width: 100%; height: 100%; background: none; }
.kit-tools {
  display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center; justify-content: center; padding: 6px 0; font-size: .86rem;
}
.kit-tools input[type=range] { width: min(320px, 60vw); }
.kit-tools select, .kit-tools button {
  padding: 1px 8px; border: 1px solid var(--border-color-primary); border-radius: 6px; background: var(--background-fill-primary);
  color: var(--body-text-color);
}
.kit-reading { min-width: 15em; font-variant-numeric: tabular-nums; }
:is(button, [role=button], [role=tab], summary, select, a, input):focus-visible {
  outline: 3px solid var(--color-accent) !important; outline-offset: 2px;
}
/* an error is told in a toast; Gradio would cover every control that the event might have set */
[data-testid=status-tracker]:has(.error) { display: none !important; }
@media (max-width: 1000px) {
  .kit-strip, .kit-many { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .kit-strip img, .kit-strip .kit-empty { height: auto; }
}
@media (max-width: 800px) {
  .kit-explore > .kit-panel { display: contents; }
  .kit-explore .kit-pictures { order: 1; }
  .kit-explore .kit-result { order: 2; }
  .kit-explore .kit-controls { order: 3; }
  .kit-result .kit-answer { order: 1; }
  .kit-result .kit-prompt { order: 2; }
  .kit-result .kit-closer { order: 3; }
  .kit-gallery { grid-template-columns: repeat(12, 64px); overflow-x: auto; }
  .kit-page { flex-direction: column; }
  .gradio-container main, .kit-page, .kit-page > .column, .kit-page .tabs { min-width: 0 !important; max-width: 100%; }
  .gradio-container main { padding: 12px !important; max-width: 100vw; }
}
@media (max-width: 640px) {
  .kit-table { max-width: calc(100vw - 64px); }
  .kit-words li { grid-template-columns: minmax(0, 1fr) minmax(60px, 1fr) 4.5em !important; }
  .kit-words .kit-mark { grid-column: 1 / -1; }
  .kit-strip, .kit-many { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .kit-strip img, .kit-strip .kit-empty { height: 170px; }
  .kit-many img, .kit-many .kit-empty { height: auto; }
  .kit-watch { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .kit-watch img { height: auto; }
  .kit-latest { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .kit-flow > div {
    grid-template: "scenes scenes scenes" "one one one" "clip two loss" "up . back" "learned learned learned" "on on on" "needs needs needs"
      / 1fr auto 1fr;
  }
  .kit-arrow[style$=one] { rotate: 90deg; }
  .kit-arrow[style$=on] { rotate: -90deg; }
}
"""


def build(
    clip: Clip, methods: Mapping[str, Method] | None = None, weights: str | Path | None = None, changes: Mapping[str, Any] | None = None
) -> tuple[gr.Blocks, dict]:
    """The whole app around one CLIP, ready to be launched with `LAUNCH`, and its pages by title.

    methods: by name (without: the kit's); weights: a file of something learned, for the method it belongs to; changes: settings of this
    app, for the methods that have them (without: masks that need no other model).
    """
    methods = dict(METHODS if methods is None else methods)
    own = {"proposals": SUPERPIXELS} if changes is None else changes
    studio = Studio(clip, methods, learned=started_with(clip, methods, weights), changes=own)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=KEEP_FILES) as demo:
        gr.HTML(header(clip))
        pages, tab_of = {}, {}
        with gr.Tabs() as tabs:
            for title, page in PAGES.items():
                with gr.Tab(title, id=title) as tab_of[title]:
                    pages[title] = page(studio, demo)
        for title, page in pages.items():
            if hasattr(page, "join"):
                page.join(pages["Explore"], tabs, tab_of[title])

        def leave(request: gr.Request) -> None:
            studio.shelf.forget(request.session_hash)

        demo.unload(leave)
    return demo.queue(max_size=32, default_concurrency_limit=4), pages


def started_with(clip: Clip, methods: Mapping[str, Method], weights: str | Path | None) -> dict[str, Learned | str]:
    """What the app's file holds, for the method it belongs to; a sentence, for each that could have had one, where it cannot be used."""
    if weights is None:
        return {}
    learners, why = [name for name, method in methods.items() if method.lessons], ""
    try:
        name = Learned.load(weights, clip=clip).about.get("method", "")
        if name in learners:
            learned = Learned.load(weights, method=name, clip=clip)
            methods[name](clip, learned=learned)  # its settings fit too
            return {name: learned}
        why = f"they were learned by {name!r}, which is none of {', '.join(learners)}"
    except ValueError as error:
        why = str(error).replace(str(weights), Path(weights).name)
    return dict.fromkeys(learners, f"the prompts of {Path(weights).name} cannot be used: {why}")


def header(clip: Clip) -> str:
    world = "real CLIP: drawn scenes and photos alike"
    if clip.is_tiny:
        world = "the drawn world; it knows nothing else"
    elif clip.is_untrained:
        world = "untrained weights: these masks mean nothing"
    badges = "".join(f'<span class="kit-badge">{html.escape(text)}</span>' for text in (f"{clip.name} model on {clip.device}", world))
    sentence = "Name what a picture shows; CLIP turns the words into a mask."
    return f'<div class="kit-head"><h1>{TITLE}</h1><p>{sentence}</p>{badges}</div>'


# What `launch` is told; in Gradio 6 it, not Blocks, takes theme and style.
LAUNCH = {
    "theme": THEME,
    "css": CSS,
    "footer_links": ["api"],
    "run_history": False,
    "ssr_mode": False,
    "pwa": False,
    "enable_monitoring": False,
    "max_file_size": PACKED_BYTES,  # of one upload; pictures have lower limits of their own
    "show_error": False,
    "js": (ASSETS / "page.js").read_text(encoding="utf-8"),
    "allowed_paths": [str(NOTEBOOKS)],  # the lessons, to be downloaded beside what they explain
}
