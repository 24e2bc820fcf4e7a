"""Beside an order to learn: a diagram of what is learned and what stays, and what is recorded of the last time."""

import html
from collections.abc import Mapping, Sequence

from kit.learned import Learned
from kit.method import Method
from kit.ui.lesson import Subject
from kit.ui.session import Studio
from kit.words import VOC_CLASSES

LOSSES, JUDGED = "losses", "judged"  # in Learned.about: task -> (step, loss) pairs; scenes, miou and the verdict


def diagram(studio: Studio, subject: Subject) -> str:
    """What is learned, what stays frozen and what is lowered: a figure for each lesson of the subject, in order."""
    return "".join(_flow(studio, subject.method, name) for name in subject.lessons)


def _flow(studio: Studio, method: Method, name: str) -> str:
    lesson = method.lessons[name]
    prepared = [part for part in lesson.parts if part != name]
    losses = ", ".join(lesson.losses) or "its own"
    count = sum(parameter.numel() for parameter in studio.clip.model.parameters())
    clip = f"{count / 1e6:,.1f} million numbers" + (f"; once, before the first step: {', '.join(prepared)}" if prepared else "")
    boxes = [
        _box("scenes", "given", "Drawn scenes", "and the names of what they show, nothing else"),
        _box("clip", "frozen", "CLIP", clip),
        _box("loss", "lowered", "Loss", losses),
        _box("learned", "learned", lesson.title, _size(studio, method, name)),
    ]
    if lesson.needs:
        needed = " and ".join(method.lessons[need].title for need in lesson.needs)
        boxes.append(_box("needs", "frozen", needed, "learned before"))
    arrows = {"one": "→", "two": "→", "up": "↑ asked with", "back": "↙ step by step"} | ({"on": "→"} if lesson.needs else {})
    boxes += [f'<span class="kit-arrow" style="grid-area:{place}">{arrow}</span>' for place, arrow in arrows.items()]
    learned = html.escape(lesson.title.lower())
    told = f"Every step changes the {learned} a little, so that the loss falls. All that has a dashed frame stays as it is."
    return f'<figure class="kit-flow"><div>{"".join(boxes)}</div><figcaption>{told}</figcaption></figure>'


def _box(place: str, kind: str, title: str, told: str) -> str:
    inner = f"<i>{kind}</i><b>{html.escape(title)}</b>" + (f"<span>{html.escape(told)}</span>" if told else "")
    return f'<div class="kit-box kit-{kind}" style="grid-area:{place}">{inner}</div>'


def _size(studio: Studio, method: Method, name: str) -> str:
    """How many numbers a lesson learns, where that is known before it is learned."""
    pipeline, start = studio.start(method.name), method.lessons[name].start
    if pipeline.learned is not None and name in pipeline.learned.tensors:
        return f"{pipeline.learned.tensors[name].numel():,} numbers"
    if start is None:
        return ""
    with studio.lock:
        return f"{start(pipeline, VOC_CLASSES)[name].numel():,} numbers"


def recorded(subject: Subject, learned: Learned | None, *, here: bool = False) -> str:
    """The last recorded run of a subject: what its file says of it, and no more.   here: learned in this visit."""
    lessons = [name for name in subject.lessons if learned is not None and name in learned.tensors]
    if not lessons:
        return "<p><b>Last recorded run:</b> none. Nothing of this was learned before; press Start.</p>"
    about = learned.about
    whose = "your last one in this visit" if here else "that of the file the app began with"
    lines = [_lesson_told(subject.method, name, about) for name in lessons]
    missing = [what for what, key in (("losses", LOSSES), ("judgement", JUDGED)) if key not in about]
    said = "".join(f"<li>{line}</li>" for line in lines)
    if JUDGED in about:
        said += "".join(f"<li>{html.escape(sentence)}</li>" for sentence in about[JUDGED]["verdict"])
    if missing:
        said += f"<li>Not recorded: {' and '.join(missing)}.{'' if here else ' Press Start to learn anew and see them.'}</li>"
    curves = "".join(_curve(subject.method.lessons[name].title, about[LOSSES][name]) for name in lessons if name in about.get(LOSSES, {}))
    return f"<p><b>Last recorded run</b>, {whose}. {html.escape(learned.told())}</p><ul>{said}</ul>{curves}"


def _lesson_told(method: Method, name: str, about: Mapping) -> str:
    """A lesson's steps, pictures a step and rate, as far as they are recorded."""
    lesson = method.lessons[name]
    if "data" not in about:
        return html.escape(f"{lesson.title}: nothing is recorded of its steps.")
    learning = method.settings_of(about["settings"]).value(lesson.learning)
    steps = about["steps made"].get(name) if "steps made" in about else learning.steps
    if steps is None:
        return html.escape(f"{lesson.title}: learned before, and not changed.")
    losses = f", losses: {', '.join(lesson.losses)}" if lesson.losses else ""
    return html.escape(f"{lesson.title}: {steps} steps of {learning.batch} pictures, rate {learning.rate:g}{losses}.")


def _curve(title: str, points: Sequence[Sequence[float]]) -> str:
    """A lesson's losses as a small curve with its first and last value.   points: (step, loss), steps rising."""
    (first, high), (last, low) = points[0], points[-1]
    bottom, top = (pick(loss for _, loss in points) for pick in (min, max))
    width, span = max(last - first, 1), max(top - bottom, 1e-9)
    path = " ".join(f"{300 * (step - first) / width:.1f},{4 + 52 * (top - loss) / span:.1f}" for step, loss in points)
    told = html.escape(f"{title}: loss {high:.3f} at step {first}, {low:.3f} at step {last}")
    line = f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5" vector-effect="non-scaling-stroke"/>'
    svg = f'<svg viewBox="0 0 300 60" preserveAspectRatio="none" role="img" aria-label="{told}">{line}</svg>'
    return f'<figure class="kit-curve">{svg}<figcaption>{told}</figcaption></figure>'
