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
KEEP_FILES = (600, 3600)  # every ten minutes, files of more than an hour ago are deleted

THEME = gr.themes.Soft(
    primary_hue="teal",
    neutral_hue="slate",
    radius_size="md",
    spacing_size="sm",
    text_size="sm",
    font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"),
    font_mono=("ui-monospace", "Menlo", "Consolas", "monospace"),
)

CSS = """
/* clip: with hidden, the panel would not stick */
.gradio-container { max-width: min(1480px, 100vw) !important; margin: 0 auto; overflow: clip !important; }
.kit-head { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; }
.kit-head h1 { font-size: 1.35rem; font-weight: 650; margin: 0; }
.kit-head p { margin: 0; color: var(--body-text-color-subdued); }
.kit-badge { padding: 1px 9px; border: 1px solid var(--border-color-primary); border-radius: 99px; font-size: .8rem; white-space: nowrap; }
.kit-strip { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 8px; }
.kit-heats { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 10px; }
.kit-small { grid-template-columns: repeat(auto-fill, minmax(145px, 1fr)); }
.kit-strip figure, .kit-heats figure, .kit-patch figure { margin: 0; min-width: 0; }
.kit-strip img, .kit-strip .kit-empty {
  width: 100%; height: min(246px, 31vh); object-fit: contain; border-radius: 8px;
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
.kit-many img, .kit-many .kit-empty { height: auto; }
.kit-many .kit-empty { aspect-ratio: 1; }
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
.kit-chip { padding: 0 7px; border: 1px solid var(--border-color-primary); border-radius: 99px; font-size: .8rem; white-space: nowrap; }
.kit-link { color: var(--link-text-color); text-align: left; text-decoration: underline; overflow-wrap: anywhere; }
.kit-do { padding: 1px 9px; border: 1px solid var(--border-color-primary); border-radius: 6px; white-space: nowrap; }
.kit-large {
  width: min(720px, 94vw); max-height: 96vh; margin: auto; padding: 12px; overflow: auto; border: 1px solid var(--border-color-primary);
  border-radius: 8px; background: var(--background-fill-primary); color: var(--body-text-color);
}
.kit-large::backdrop { background: rgb(0 0 0 / .5); }
.kit-large img { width: 100%; max-height: 74vh; margin: 0; object-fit: contain; }
.kit-notes { font-size: .88rem; line-height: 1.5; }
.kit-notes pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.kit-notes ul { margin: 0; padding-left: 1.1em; list-style: disc; }
.kit-notes .kit-warn { border-left: 3px solid #d97706; padding-left: 8px; margin: 2px 0; }
.kit-seconds { color: var(--body-text-color-subdued); }
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
.kit-gallery .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; grid-auto-rows: auto !important; }
.kit-gallery .grid-container { gap: 4px; height: auto; }
.kit-gallery .grid-wrap { min-height: 0; max-height: none; height: auto; padding: 2px; }
.kit-gallery .thumbnail-item { aspect-ratio: 1; height: auto; min-height: 0; }
.kit-gallery .caption-label { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.kit-whatif { gap: 4px; }
.kit-whatif button { white-space: normal; padding: 4px 6px; }
@media (max-width: 800px) {
  .kit-page { flex-direction: column; }
  .gradio-container main, .kit-page, .kit-page > .column, .kit-page .tabs { min-width: 0 !important; max-width: calc(100vw - 24px); }
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
    world = "Real CLIP: drawn scenes and photos alike."
    if clip.is_tiny:
        world = "The drawn world, seen by the tiny model that knows nothing else."
    elif clip.is_untrained:
        world = "Untrained weights: these masks mean nothing."
    badges = "".join(f'<span class="kit-badge">{html.escape(text)}</span>' for text in (f"model: {clip.name}", f"device: {clip.device}"))
    sentence = f"Name what a picture shows, and watch CLIP turn the words into a mask. {world}"
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
}
