"""Learn: an order is checked, a lesson can be watched, stopped, left, judged, kept, and used in Explore."""

import math
import time
from types import SimpleNamespace

import gradio as gr
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError

from kit.data import toy_samples
from kit.learned import load_learned
from kit.methods import FmaWsss
from kit.ui.lesson import Course, Judgement, checked_order, limits, mean_iou
from kit.ui.recording import MOMENTS, Chart, Recording, Watched
from kit.ui.session import HERE, Refused

NAME = FmaWsss.name
FIRST, SECOND, BOTH = (f"{NAME}: {what}" for what in ("classification", "segmentation", "all, one after the other"))
SMALL = {"scenes": 8, "steps": 3, "rate": 0.002, "seed": 0, "judged": 4}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("kit.ui.learn.REDRAW", 0)


@pytest.fixture
def visitor(server):
    """Somebody who has a drawn scene of a horse and a sheep open in Explore."""
    visitor = SimpleNamespace(session_hash=f"learner-{time.monotonic_ns()}")
    visitor.key = server.page.studio.keep(visitor.session_hash, next(toy_samples("val", 1, size=160, start=2)))
    return visitor


def started(server, visitor, subject=FIRST, watched=0, **changes):
    page = server.pages["Learn"]
    page.begin(visitor, subject, *(SMALL | changes).values(), watched, visitor.key)
    return page.work(visitor)


def small(server, subject=FIRST, **changes):
    return checked_order(server.page.studio, subject, *(SMALL | changes).values())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scenes": 7}, "scenes as a whole number from 8"),
        ({"scenes": 10**6}, "scenes as a whole number"),
        ({"steps": 1.5}, "steps as a whole number"),
        ({"steps": math.nan}, "steps as a whole number"),
        ({"rate": 0}, "a rate from"),
        ({"rate": math.inf}, "a rate from"),
        ({"rate": math.nan}, "a rate from"),
        ({"rate": True}, "a rate from"),
        ({"rate": None}, "a rate from"),
        ({"seed": -1}, "the seed as a whole number"),
        ({"judged": 0}, "scenes to judge by"),
    ],
)
def test_numbers_are_checked_on_the_server(server, changes, says):
    with pytest.raises(Refused, match=says):
        small(server, **changes)


def test_only_what_is_on_the_list_can_be_learned(server):
    for refused in (lambda: small(server, "everything"), lambda: server.pages["Learn"].choose("everything"), lambda: small(server, None)):
        with pytest.raises(Refused, match="expected something to learn"):
            refused()


def test_a_large_model_on_a_processor_has_lower_limits(server):
    large = SimpleNamespace(is_tiny=False, device=torch.device("cpu"))
    assert limits(large).steps[1] < limits(server.clip).steps[1]
    assert limits(SimpleNamespace(is_tiny=False, device=torch.device("cuda"))) == limits(server.clip)


def test_a_lesson_moves_the_prompts_and_tells_what_they_say(server):
    course = Course(server.page.studio, small(server, steps=5), None)
    assert course.so_far() is None
    tasks = [step.task for step in course.steps()]
    assert tasks == ["drawing"] * 8 + ["encoding"] + ["classification"] * 5
    after = course.so_far()
    before, learned = (method.learned.tensors["classification"] for method in (course.before, after))
    assert (before - learned).abs().max() > 1e-4 and after.learned.about["steps made"] == {"classification": 5}
    words = course.words(after, "boat")
    assert len(words) == 16 and all(len(nearest) == 3 for nearest in words)


def test_what_is_learned_so_far_is_what_a_step_has_reached(server):
    course = Course(server.page.studio, small(server, steps=5), None)
    steps, seen = course.steps(), []
    for step in steps:
        if step.task == "classification":
            seen.append(course.so_far().learned.tensors["classification"])
            if step.step == 3:
                break
    steps.close()
    assert torch.equal(course.so_far().learned.tensors["classification"], seen[-1]) and not torch.equal(seen[-1], seen[-2])


def test_segmentation_prompts_keep_the_classification_prompts_they_build_on(server):
    with pytest.raises(Refused, match="learn these first"):
        Course(server.page.studio, small(server, SECOND), None)
    known = server.page.studio.start(NAME).learned
    course = Course(server.page.studio, small(server, SECOND, steps=2), known)
    tasks = {step.task for step in course.steps()}
    assert tasks == {"drawing", "encoding", "coarse seeds", "segmentation"}
    after = course.so_far().learned.tensors
    assert torch.equal(after["classification"], known.tensors["classification"])
    assert not torch.equal(after["segmentation"], known.tensors["segmentation"])
    assert list(course.before.learned.tensors) == ["classification"]  # also when learning is over
    assert course.words(course.so_far(), "boat") != course.words(course.so_far(), "cow")  # each class has its own
    *_, (count, scores) = course.judged(course.so_far())
    assert count == 4
    assert list(scores) == ["hand-crafted prompts: coarse", "learned prompts: coarse", "learned prompts: fine"]


def test_learning_is_watched_judged_kept_and_used_in_explore(server, visitor):
    page, seen = server.pages["Learn"], list(started(server, visitor))
    told = [step[0] for step in seen]
    assert any("Part 3 of 3" in sentence and "a second" in sentence for sentence in told)
    assert "Learned after" in told[-1] and "3 steps of classification prompts" in told[-1]
    pictures = [step[1] for step in seen if isinstance(step[1], str) and step[1]]
    assert len(pictures) > 1 and "heat of horse" in pictures[-1] and "coarse seeds" in pictures[-1] and "IoU of this scene" in pictures[-1]
    assert any("16 learned vectors, which all classes share" in step[6] for step in seen if isinstance(step[6], str))
    assert "Over 4 scenes of the val split" in seen[-1][4] and "prompts before learning: coarse" in seen[-1][4]
    button = next(step[3] for step in reversed(seen) if isinstance(step[3], gr.DownloadButton))
    path = button.value["path"] if isinstance(button.value, dict) else button.value
    _, about = load_learned(path)
    assert about["steps made"] == {"classification": 3} and about["images"] == 8
    kept = FmaWsss(server.clip, learned=path)

    method, source, *_ = page.use(visitor)
    assert (method, source) == (NAME, HERE)
    asked = server.page.studio.pipeline(visitor.session_hash, NAME, {"prompts from": HERE})
    assert asked.learned.fingerprint == kept.learned.fingerprint and list(asked.titles) == ["cam", "affinity", "coarse"]


def test_a_method_of_ones_own_is_learned(server, visitor, own):
    seen = list(started(server, visitor, f"{own.name}: texts"))
    assert "Learned after" in seen[-1][0] and "3 steps of texts" in seen[-1][0] and "learned prompts: otsu" in seen[-1][4]
    assert server.pages["Learn"].use(visitor)[0] == own.name


def test_stop_keeps_what_was_learned(server, visitor):
    page, work = server.pages["Learn"], started(server, visitor, steps=200)
    while "classification prompts: 3 of 200" not in next(work)[0]:
        pass
    with pytest.raises(Refused, match="learning already"):
        started(server, visitor)
    assert list(page.work(visitor)) == [[gr.skip()] * 9]  # the work is somebody's already
    page.stop(visitor)
    *_, (told, *_, table, _, _, _, _) = work
    assert "Stopped after" in told and "4 steps of classification prompts" in told and "Over 4 scenes" in table
    page.use(visitor)
    list(started(server, visitor, SECOND, steps=2))  # and the next may begin, from what was learned


def test_a_second_stop_ends_the_judging(server, visitor):
    page, work = server.pages["Learn"], started(server, visitor, judged=60)
    while "Judging: 1 of 60" not in next(work)[0]:
        pass
    page.stop(visitor)
    *_, (told, _, _, _, table, *_) = work
    assert "Judging" not in told and "Over 2 scenes" in table


def test_stop_before_anything_was_learned_says_so(server, visitor):
    work = started(server, visitor)
    next(work)
    server.pages["Learn"].stop(visitor)
    *_, (told, *_) = work
    assert "before anything was learned" in told
    with pytest.raises(Refused, match="no longer on the server"):
        server.pages["Learn"].use(visitor)


def test_a_lesson_ends_when_its_visitor_leaves(server, visitor, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    work = started(server, visitor, steps=200)
    while "classification prompts: 2 of 200" not in next(work)[0]:
        pass
    assert list(tmp_path.iterdir())
    server.page.studio.shelf.forget(visitor.session_hash)
    assert list(work) == [] and not list(tmp_path.iterdir())


def test_the_model_is_free_between_two_steps(server, visitor):
    work = started(server, visitor, steps=50)
    for _ in range(12):
        next(work)
        assert server.page.studio.lock.acquire(blocking=False)
        server.page.studio.lock.release()
    server.page.studio.shelf.forget(visitor.session_hash)
    assert list(work) == []


def test_segmentation_prompts_need_others_first(server, visitor, monkeypatch):
    monkeypatch.setattr(server.pages["Learn"], "_known", lambda *_: None)
    with pytest.raises(Refused, match="learn these first"):
        started(server, visitor, SECOND)


def test_a_drawn_scene_can_be_watched_instead(server, visitor):
    visitor.key = ""
    with pytest.raises(Refused, match="choose it again"):
        started(server, visitor)
    for wrong in (-1, 99, None, "scene"):
        with pytest.raises(Refused, match="picture to watch"):
            started(server, visitor, watched=wrong)
    *_, step = (step for step in started(server, visitor, watched=1) if isinstance(step[1], str) and step[1])
    assert "heat of boat" in step[1]


def test_a_loss_that_is_no_number_ends_in_a_sentence(server, visitor, monkeypatch):
    def broken(*_, **__):
        return {"contrastive": torch.tensor(math.nan, requires_grad=True)}

    monkeypatch.setattr("kit.methods.fma_wsss.ClassificationTask.losses", broken)
    work = started(server, visitor)
    with pytest.raises(ValueError, match="no number any more"):
        for step in work:
            last = step
    assert "Nothing was learned" in last[0]


def test_the_plot_runs_to_the_last_step(server):
    chart = Chart()
    chart.losses, chart.steps = {"one": [4.0, 2.0, 1.0], "two": [1.0] * 5000}, {"one": 9, "two": 5000}
    plot = chart.plot()
    assert plot.x_lim == [1, 5000] and plot.visible and len(plot.value["data"]) < 500
    assert not Chart().plot().visible


def test_a_verdict_compares_with_everything_else():
    scores = {"hand-crafted prompts: coarse": 0.5, "prompts before learning: coarse": 0.1, "learned prompts: fine": 0.47}
    told = "3.0 points below hand-crafted prompts (coarse), 37.0 points above prompts before learning (coarse)"
    assert verdict(scores) == f"Learned prompts (fine): {told}."


def test_a_program_can_learn(server):
    client = Client(server.url, verbose=False)
    path, report = client.predict(FIRST, *SMALL.values(), api_name="/learn")
    assert len(report["losses"]["classification"]) == 3 and report["scenes judged"] == 4 and report["split judged"] == "val"
    asked_with = ("hand-crafted prompts", "prompts before learning", "learned prompts")
    assert list(report["miou"]) == [f"{title}: coarse" for title in asked_with]
    learned = FmaWsss(server.clip, learned=path)
    course = Course(server.page.studio, small(server), None)
    for _ in course.steps():
        pass
    assert torch.equal(learned.learned.tensors["classification"], course.so_far().learned.tensors["classification"])
    for asked, says in (((FIRST, 8, 0, 0.1, 0, 4), "steps"), (("all", 8, 2, 0.1, 0, 4), "something to learn")):
        with pytest.raises(AppError, match=says):
            client.predict(*asked, api_name="/learn")
