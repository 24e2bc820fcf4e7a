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
    "css": (ASSETS / "page.css").read_text(encoding="utf-8"),
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
