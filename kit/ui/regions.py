"""Mask proposals as a layer of the page: an SVG over the picture in which every region tells its level and what it voted for."""

import html
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from kit.propose import LEVELS, Proposals
from kit.ui import figures
from kit.vote import Vote

LINE = 22  # height of the line below the picture, in its pixels at a width of 320


def layer(
    image: np.ndarray, proposals: Proposals, outlines: Mapping[int, str], vote: Vote, names: Sequence[str], *, level: int, title: str
) -> str:
    """The masks of one level with their votes: pointing at a mask, or tapping it, tells about it below the picture.

    image uint8 (H, W, 3) of the proposals' size; outlines: those of the level's masks, by their indices; level 0..2, as in LEVELS; title:
    what the votes are of.
    """
    height, width = image.shape[:2]
    seen = set(np.unique(vote.mask.cpu().numpy()).tolist())
    sizes = proposals.masks.flatten(1).sum(1).tolist()
    chosen = sorted(outlines, key=lambda index: -sizes[index])  # a smaller mask lies above a larger one
    below, letters = height + 0.75 * LINE * width / 320, 0.034 * width
    parts = []
    for index in chosen:
        label, scores = int(vote.mask_labels[index]), vote.mask_scores[index]
        name = "background" if label == 0 else names[label - 1]
        told = html.escape(f"{LEVELS[level]}: {name} {float(scores[label]):.2f}" + ("" if index in seen else ", painted over"))
        look = "" if label == 0 else f' style="fill:{figures.hex_colour(name, names)}"'
        parts.append(
            f'<g><path d="{outlines[index]}"{look}><title>{told}</title></path>'
            f'<text x="{width / 2:g}" y="{below:.1f}" font-size="{letters:.1f}" text-anchor="middle">{told}</text></g>'
        )
    voted = len([index for index in chosen if int(vote.mask_labels[index])])
    by = figures.source_told(proposals.source)
    summary = f"{len(chosen)} masks of the level “{LEVELS[level]}” by {by}; {voted} of them voted for a class"
    picture = f'<image href="{figures.picture_url(image)}" width="{width}" height="{height}"/>'
    return (
        f'<figure class="kit-regions"><svg viewBox="0 0 {width} {height + LINE * width / 320:.1f}" role="img" '
        f'aria-label="{html.escape(summary)}">{picture}{"".join(parts)}</svg>'
        f"<figcaption><b>{html.escape(title)}</b><span>{html.escape(summary)}. Point at one, or tap it.</span></figcaption></figure>"
    )


def level_outlines(proposals: Proposals, level: int) -> dict[int, str]:
    """The outlines of a level's masks, by their indices."""
    return {index: outline(proposals.masks[index].cpu().numpy()) for index in (proposals.levels == level).nonzero()[:, 0].tolist()}


def outline(mask: np.ndarray) -> str:
    """The border of a mask along its pixels' edges, as an SVG path.   bool (H, W) -> text such as "M2 1h3v2h-3z"."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    inside = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    upper, lower = inside[:-1, 1:-1], inside[1:, 1:-1]
    before, behind = inside[1:-1, :-1], inside[1:-1, 1:]
    after: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)  # corner (x, y) -> the next, the mask on the right hand
    for edges, start, end in (
        (lower & ~upper, (0, 0), (1, 0)),
        (upper & ~lower, (1, 0), (0, 0)),
        (behind & ~before, (0, 1), (0, 0)),
        (before & ~behind, (0, 0), (0, 1)),
    ):
        for y, x in np.argwhere(edges).tolist():
            after[x + start[0], y + start[1]].append((x + end[0], y + end[1]))
    return "".join(_loop(after, start, left, top) for start in list(after) if after[start])


def _loop(after: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int], left: int, top: int) -> str:
    """One closed line from `start`, its straight pieces put together; what it used is taken out of `after`."""
    moves: list[list[int]] = []
    at = start
    while after[at]:
        to = after[at].pop()
        step = [to[0] - at[0], to[1] - at[1]]
        if moves and (moves[-1][0] == 0) == (step[0] == 0) and (moves[-1][1] == 0) == (step[1] == 0):
            moves[-1] = [moves[-1][0] + step[0], moves[-1][1] + step[1]]
        else:
            moves.append(step)
        at = to
    path = "".join(f"h{x}" if x else f"v{y}" for x, y in moves)
    return f"M{start[0] + left} {start[1] + top}{path}z"
