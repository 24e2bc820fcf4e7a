"""What a picture's stages do, in words, from its own numbers: how much of an object they find, how much of the mask lies elsewhere."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kit import show
from kit.data import Sample
from kit.mask import IGNORE
from kit.words import VOC_CLASSES, label_numbers

NOTICED = 0.01  # a smaller change of a share is told as none


@dataclass(frozen=True)
class Tally:
    """What a class's mask covers, each a share from 0 to 1.

    found: of the object, None where the picture shows none; on: of the mask by what it lies on, the class itself left out, the largest
    first; covered: of the picture.
    """

    found: float | None
    on: tuple[tuple[str, float], ...]
    covered: float

    @property
    def elsewhere(self) -> float:
        return sum(share for _, share in self.on)


def tally(sample: Sample, labels: np.ndarray, name: str) -> Tally:
    """What the mask of a class covers.   labels (H, W) as VOC numbers them; without a truth only `covered` is known."""
    number = label_numbers(sample.names)[name]
    mask, truth = labels == number, sample.truth
    if truth is None:
        return Tally(None, (), float(mask.mean()))
    mask &= truth != IGNORE
    there, size = truth == number, max(1, int(mask.sum()))
    counts = np.bincount(truth[mask], minlength=256)
    on = {VOC_CLASSES[other - 1]: counts[other] / size for other in range(1, 1 + len(VOC_CLASSES)) if counts[other] and other != number}
    ground = mask & (truth == 0)
    if sample.stuff is None:
        on["the background"] = ground.sum() / size
    else:
        from kit.toy.places import STUFF

        on |= {STUFF[kind]: count / size for kind, count in enumerate(np.bincount(sample.stuff[ground])) if count}
    found = float(mask[there].mean()) if there.any() else None
    return Tally(found, tuple(sorted(on.items(), key=lambda part: -part[1])), float(mask.mean()))


def told(name: str, now: Tally, before: Tally | None = None, *, known: bool = True) -> str:
    """A stage in one sentence, beside the one it builds on: "fills and leaks: finds 89 % of the boat (+40), spills 28 % ..."."""
    if not known:
        change = "" if before is None else f" ({100 * (now.covered - before.covered):+.0f})"
        return f"covers {percent(now.covered)} of the picture{change}"
    if now.covered == 0:
        return f"finds nothing of the {name}" if now.found is not None else f"rightly finds no {name}: none is here"
    verb = "" if before is None else f"{changed(now, before)}: "
    most = f", most on the {now.on[0][0]}" if now.on and now.on[0][1] >= 0.005 else ""
    if now.found is None:
        return f"{verb}finds a {name} where none is{most}"
    change = "" if before is None or before.found is None else f" ({100 * (now.found - before.found):+.0f})"
    return f"{verb}finds {percent(now.found)} of the {name}{change}, spills {percent(now.elsewhere)}{most}"


def changed(now: Tally, before: Tally) -> str:
    """What a stage did to the mask, in one or two verbs."""
    found, spilt = (now.found or 0) - (before.found or 0), now.elsewhere - before.elsewhere
    size = "fills" if found >= NOTICED else "loses" if found <= -NOTICED else ""
    edge = "leaks" if spilt >= NOTICED else "trims" if spilt <= -NOTICED else ""
    return " and ".join(filter(None, (size, edge))) or "changes little"


def lies_on(name: str, now: Tally) -> str:
    """On what the mask of a class lies, in one line."""
    if now.covered == 0:
        return f"The mask has no {name}."
    own = [(name, 1 - now.elsewhere)] if now.found is not None else []
    parts = ", ".join(f"{percent(share)} on the {word}" for word, share in [*own, *now.on][:5] if share >= 0.005)
    return f"Of the mask of {name} lie {parts}."


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def sentence(
    template: str, names: Sequence[str], synonyms: Mapping[str, str], colours: Mapping[str, str], shown: str, *, rivals: int,
    vectors: str = "",
) -> str:  # fmt: skip
    """The prompt as a sentence, with a chip to choose for every class.

    rivals: how many background words compete; vectors: what stands in the template's place where prompts were learned, as HTML.
    """
    chips = []
    for name in names:
        word, own = synonyms.get(name, name), html.escape(name)
        said = own if word == name else f"{html.escape(word)} (for {own})"
        chosen = str(name == shown).lower()
        attributes = f'class="kit-chip" data-choose="{own}" aria-pressed="{chosen}" title="show the heat of {own}"'
        chips.append(f'<button {attributes}><i style="background:{colours[name]}"></i>{said}</button>')
    before, _, after = template.partition("{}")
    asked = f"{vectors} {' '.join(chips)}" if vectors else f"“{html.escape(before)}{' '.join(chips)}{html.escape(after)}”"
    return f'<p class="kit-sentence">{asked} <span>against {rivals} background word{"s" * (rivals != 1)}</span></p>'


def legend(names: Sequence[str], colours: Mapping[str, str], shown: str, colour_map: str, confidence: float) -> str:
    """What the colours mean: the heat's bar, a chip a class, the hatching."""
    stops = ", ".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in show.colour_bar(colour_map))
    chips = "".join(f'<span><i style="background:{colours[name]}"></i>{html.escape(name)}</span>' for name in names)
    why = f"its best score is a smaller share than {confidence:g}: training on the mask leaves it out"
    unsure = f'<span title="{why}"><i class="kit-hatch"></i>unsure</span>'
    return (
        '<div class="kit-legend" role="note" aria-label="Legend">'
        f'<span>heat of {html.escape(shown)}: none <i class="kit-bar" style="background:linear-gradient(90deg, {stops})"></i> its highest'
        f"</span>{chips}<span>as the picture is: background</span>{unsure}</div>"
    )
