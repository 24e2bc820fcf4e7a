"""Learn: an order is checked, a lesson can be watched, stopped, left, judged, kept, and used in Explore."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError

from kit.data import toy_samples
from kit.fit import FitStep
from kit.learned import Learned, load_learned
from kit.methods import FmaWsss
from kit.score import Confusion
from kit.ui.diagram import diagram, recorded
from kit.ui.learn import RECORDING
from kit.ui.lesson import Course, Judgement, checked_order, limits, mean_iou
from kit.ui.recording import MOMENTS, Chart, Recording
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


def part(server, step, name):
    """What a step shows in one of the page's places."""
    value = step[[*server.pages["Learn"].shown].index(name)]
    return value.value if isinstance(value, gr.HTML) and value.visible else value


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
    nobody, choose = SimpleNamespace(session_hash="nobody"), server.pages["Learn"].choose
    for refused in (lambda: small(server, "everything"), lambda: choose(nobody, "everything"), lambda: small(server, None)):
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
    *_, judgement = course.judged(course.so_far())
    assert judgement.scenes == 4 and judgement.before == "learned prompts: coarse"  # what it builds on
    assert list(judgement.scores) == ["hand-crafted prompts: coarse", "learned prompts: coarse", "learned prompts: fine"]


def test_learning_is_watched_judged_kept_and_used_in_explore(server, visitor):
    page, seen = server.pages["Learn"], list(started(server, visitor))
    told = [step[0] for step in seen]
    assert any("Part 3 of 3" in sentence and "a second" in sentence for sentence in told)
    assert "Learned after" in told[-1] and "3 steps of classification prompts" in told[-1]
    pictures = [step[1] for step in seen if isinstance(step[1], str) and step[1]]
    assert len(pictures) > 1 and "heat of horse" in pictures[-1] and "coarse seeds" in pictures[-1] and "IoU " in pictures[-1]
    assert any("16 learned vectors, which all classes share" in step[6] for step in seen if isinstance(step[6], str))
    assert "the masks of 4 other scenes" in part(server, seen[-1], "scores") and "prompts before learning: coarse" in part(
        server, seen[-1], "scores"
    )
    assert not any(part(server, step, "scores") for step in seen[:-1] if isinstance(part(server, step, "scores"), str))  # no verdict yet
    button = next(step[3] for step in reversed(seen) if isinstance(step[3], gr.DownloadButton))
    path = button.value["path"] if isinstance(button.value, dict) else button.value
    _, about = load_learned(path)
    assert about["steps made"] == {"classification": 3} and about["images"] == 8
    assert [step for step, _ in about["losses"]["classification"]] == [1, 2, 3] and about["judged"]["scenes"] == 4
    shown = recorded(page.subjects[FIRST], Learned.load(path))  # of an app that begins with this file
    assert "3 steps of 16 pictures" in shown and "loss" in shown and "<svg" in shown and "mIoU" in shown and "Not recorded" not in shown
    assert "your last one in this visit" in page.choose(visitor, FIRST)[-1] and "none" in page.choose(visitor, "otsu: texts")[-1]
    kept = FmaWsss(server.clip, learned=path)

    method, source, *_ = page.use(visitor)
    assert (method, source) == (NAME, HERE)
    asked = server.page.studio.pipeline(visitor.session_hash, NAME, {"prompts from": HERE})
    assert asked.learned.fingerprint == kept.learned.fingerprint and list(asked.titles) == ["cam", "affinity", "coarse"]


def test_a_method_of_ones_own_is_learned(server, visitor, own):
    seen = list(started(server, visitor, f"{own.name}: texts"))
    assert (
        "Learned after" in seen[-1][0] and "3 steps of texts" in seen[-1][0] and "learned prompts: otsu" in part(server, seen[-1], "scores")
    )
    assert server.pages["Learn"].use(visitor)[0] == own.name


def test_stop_keeps_what_was_learned(server, visitor):
    page, work = server.pages["Learn"], started(server, visitor, steps=200)
    while "classification prompts: 3 of 200" not in next(work)[0]:
        pass
    with pytest.raises(Refused, match="learning already"):
        started(server, visitor)
    assert list(page.work(visitor)) == [[gr.skip()] * len(page.shown)]  # the work is somebody's already
    page.stop(visitor)
    told = []
    for step in work:
        told.append(part(server, step, "told"))
        page.stop(visitor)  # whose second one ends nothing else
    assert "Stopped after" in told[-1] and "4 steps of classification prompts" in told[-1]
    assert "the masks of 4 other scenes" in part(server, step, "scores")
    page.use(visitor)
    list(started(server, visitor, SECOND, steps=2))  # and the next may begin, from what was learned


def test_skip_ends_the_judging_and_no_number_is_told(server, visitor):
    page, work, numbers = server.pages["Learn"], started(server, visitor, judged=60), []
    while "Judging: 1 of 60" not in (step := next(work))[0]:
        if "Judging" not in step[0]:
            page.skip(visitor)  # means nothing before there is something to judge
    page.skip(visitor)
    for step in work:
        numbers.append(part(server, step, "scores"))
    assert "3 steps of classification prompts. Not judged: skipped after 2 of 60 scenes" in step[0] and numbers == [gr.skip()]
    assert page.use(visitor)[0] == NAME and "Not recorded: judgement" in page.choose(visitor, FIRST)[-1]


def test_buttons_can_be_pressed_when_they_mean_something(server, visitor):
    page, doing = server.pages["Learn"], []
    page.begin(visitor, FIRST, *SMALL.values(), 0, visitor.key)
    for step in page.work(visitor):
        buttons = [part(server, step, name) for name in page.buttons]
        if buttons[0] != gr.skip():
            doing.append("".join(name[1] for name, button in zip(page.buttons, buttons, strict=True) if button.interactive))
        if "classification prompts: 1 of" in str(step[0]) and "Paused" not in step[0]:
            assert page.pause(visitor).value == "Resume"
        if "Paused" in str(step[0]):
            assert part(server, step, "pause").value == "Resume" and page.pause(visitor).value == "Pause"
    assert doing == ["at", "at", "at", "k", "t"]  # pAuse and sTop, held as well; sKip; sTart
    assert page.pause(visitor).value == "Pause"  # of nothing


def test_a_pause_changes_nothing_and_one_can_look_back_meanwhile(server, visitor):
    page, straight = server.pages["Learn"], Course(server.page.studio, small(server, steps=6), None)
    seen = [straight.so_far().learned.tensors["classification"] for step in straight.steps() if step.task == "classification"]
    work = started(server, visitor, steps=6)
    while "classification prompts: 3 of 6" not in next(work)[0]:
        pass
    page.pause(visitor)
    step = next(work)
    assert "Paused" in step[0] and "4 of 6" in step[0] and part(server, step, "scrub").maximum == 4
    calls = server.clip.calls
    looks = [page.look_back(visitor, place) for place in (4, 0, 2, 4)]
    assert server.clip.calls == calls and looks[0][:2] == looks[3][:2] == tuple(part(server, step, name) for name in ("watch", "words"))
    assert "before learning" in looks[1][0] and "step 2 of classification prompts" in looks[2][0] and looks[1][0] != looks[2][0]
    assert [len(plot.value["data"]) for *_, plot in looks] == [4, 0, 2, 4]
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(next, work)
        time.sleep(0.3)
        assert not waiting.done()
        page.pause(visitor)
        assert not part(server, waiting.result(), "scrub").visible
    list(work)
    after = server.page.studio.shelf.get(visitor.session_hash, RECORDING)
    for moment in range(1, 7):
        assert torch.equal(after.at(moment).pipeline.learned.tensors["classification"], seen[moment - 1])
    assert "step 6" in page.look_back(visitor, 6)[0] and server.clip.calls == calls + 4  # the judged scenes
    with pytest.raises(Refused, match="the step as a whole number"):
        page.look_back(visitor, 7)
    server.page.studio.shelf.forget(visitor.session_hash)
    with pytest.raises(Refused, match="no longer on the server"):
        page.look_back(visitor, 1)


def test_stop_ends_a_pause_and_what_was_learned_is_judged(server, visitor):
    page, work = server.pages["Learn"], started(server, visitor, steps=200)
    while "classification prompts: 2 of 200" not in next(work)[0]:
        pass
    page.pause(visitor)
    assert "Paused" in next(work)[0]
    page.stop(visitor)
    while "Judging" not in (step := next(work))[0]:
        assert step[0] == gr.skip()
    assert "Stopped after" in step[0] and "3 steps of classification prompts. Judging" in step[0]
    server.page.studio.shelf.forget(visitor.session_hash)
    list(work)


def test_a_pause_ends_when_others_have_waited_long_enough(server, visitor, monkeypatch):
    monkeypatch.setattr("kit.ui.learn.HELD_AT_MOST", 0)
    page, work = server.pages["Learn"], started(server, visitor)
    next(work)
    page.pause(visitor)
    assert "Paused. Drawing scenes: 1 of 8" in next(work)[0]
    assert part(server, next(work), "pause").value == "Pause" and "Drawing scenes: 1 of 8" in next(work)[0]
    server.page.studio.shelf.forget(visitor.session_hash)
    assert not list(work)


def test_moments_are_few_and_bounded_in_bytes(monkeypatch):
    def recorded_run(total, nbytes, stop=None):
        course = SimpleNamespace(order=SimpleNamespace(steps=total), subject=SimpleNamespace(lessons=("one",)), made_of_lessons={})
        course.before, course.title = SimpleNamespace(learned=None), str
        course.so_far = lambda: SimpleNamespace(learned=SimpleNamespace(nbytes=nbytes)) if course.made_of_lessons else None
        recording = Recording(course, SimpleNamespace(nbytes=7))
        assert not recording.reach()
        for number in range(1, (stop or total) + 1):
            course.made_of_lessons["one"] = number
            recording.add(FitStep(number, total, {"loss": 1.0}, 0.1, 0.1, "one"))
            if number % 9 == 0:
                recording.reach()  # a pause
        assert recording.reach()
        return recording

    for total, stop in ((2, None), (38, None), (60, 37), (1000, None), (1000, 997)):
        recording = recorded_run(total, 10, stop)
        assert len(recording.moments) <= MOMENTS and recording.last == (stop or total) and 0 in recording.moments
        assert len(recording.moments) > min(total, 18) and recording.at(recording.last).counts == {"one": recording.last}
    monkeypatch.setattr("kit.ui.recording.MOMENTS_BYTES", 100)
    recording = recorded_run(1000, 10, 997)
    assert recording.nbytes <= 107 and len(recording.moments) > 4 and recording.last == 997
    recording.looked = lambda pipeline, when: ("picture " * 5, when)
    assert all(recording.look(moment)[1] == moment.when for moment in recording.moments.values()) and 60 < recording.nbytes <= 107
    assert list(recorded_run(1000, 1000).moments) == [0, 1000]  # what cannot be spared


def test_buttons_come_back_after_an_error(server, visitor):
    *buttons, record = server.pages["Learn"].rest(visitor, FIRST)
    assert [button.interactive for button in buttons] == [True, False, False, False] and "Last recorded run" in record


def test_a_diagram_says_what_is_learned_and_what_stays(server):
    page = server.pages["Learn"]
    for subject in page.subjects.values():
        figure = diagram(page.studio, subject)
        assert figure.count("<figure") == len(subject.lessons)
        for name in subject.lessons:
            lesson = subject.method.lessons[name]
            assert f"<i>learned</i><b>{lesson.title}</b>" in figure and f"<span>{', '.join(lesson.losses)}</span>" in figure
            assert all(f"<i>frozen</i><b>{subject.method.lessons[need].title}</b>" in figure for need in lesson.needs)
    assert "<b>Classification prompts</b><span>2,048 numbers</span>" in diagram(page.studio, page.subjects[FIRST])
    assert "1.8 million numbers" in figure and "<b>Texts</b></div>" in figure  # how many is not known before they are learned


def test_a_file_is_told_as_far_as_it_is_recorded(server):
    page = server.pages["Learn"]
    shipped = recorded(page.subjects[BOTH], Learned.load(FmaWsss.shipped))
    assert "300 images of split train of toy" in shipped and "Not recorded: losses and judgement" in shipped and "<svg" not in shipped
    assert "Classification prompts: 200 steps of 16 pictures, rate 0.01" in shipped
    assert "Segmentation prompts: 100 steps of 8 pictures, rate 3, losses: foreground, background." in shipped
    assert "Classification prompts: nothing is recorded of its steps" in page.recorded.value  # the file this app began with
    assert "none" in recorded(page.subjects[FIRST], None)


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


def judgement_of(before, after, by_hand, scenes=6):
    """Scenes of 100 pixels each, of which 50 are a class's; so many of them were found."""

    def tables(hits):
        return np.stack([[[50, 0], [50 - each, each]] for each in (hits if isinstance(hits, list) else [hits] * scenes)])

    return Judgement({"hand-crafted prompts: a": tables(by_hand), "old: a": tables(before), "new: a": tables(after)}, "old: a", "new: a")


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (20, 40, "went from 51.2 to 81.7 % mIoU: learning brought 30.5 points here."),
        (40, 20, "went from 81.7 to 51.2 % mIoU: learning made them 30.5 points worse here."),
        (20, 20, "stayed at 51.2 % mIoU: +0.0 points, which may be chance."),
        ([10, 30] * 3, [30, 12] * 3, "points, which may be chance."),
    ],
)
def test_a_verdict_says_what_learning_brought_and_what_not(server, before, after, says):
    course = Course(server.page.studio, small(server), None)
    course.made["classification"] = 3
    first, spread, by_hand, world = course.verdict(judgement_of(before, after, 45))
    assert first.startswith("After 3 steps of classification prompts on 8 drawn scenes, the masks of 6 other scenes ")
    assert first.endswith(says) and "In 95 of 100 resamplings" in spread
    assert by_hand.startswith("Hand-crafted prompts, which nobody has to learn, reach 90.5 %: ") and "points more" in by_hand
    assert world == "One seed, the drawn world and the tiny model: this says nothing of photographs."


def test_the_judges_mean_is_that_of_all_scores():
    tables = np.random.default_rng(0).integers(0, 99, (5, 3, 3))
    tables[:, 2] = 0  # a class that no truth shows
    confusion = Confusion(("background", "a", "b"))
    truth, labels = np.indices((3, 3)).reshape(2, -1).repeat(tables.sum(0).ravel(), axis=1)
    confusion.add(truth, labels)
    assert mean_iou(tables.sum(0)) == pytest.approx(confusion.miou())


def test_a_program_can_learn(server):
    client = Client(server.url, verbose=False)
    path, report = client.predict(FIRST, *SMALL.values(), api_name="/learn")
    assert len(report["losses"]["classification"]) == 3 and report["scenes judged"] == 4 and report["split judged"] == "val"
    asked_with = ("hand-crafted prompts", "prompts before learning", "learned prompts")
    assert list(report["miou"]) == [f"{title}: coarse" for title in asked_with]
    learned = FmaWsss(server.clip, learned=path)
    assert report["verdict"] == learned.learned.about["judged"]["verdict"] and "says nothing of photographs" in report["verdict"][-1]
    course = Course(server.page.studio, small(server), None)
    for _ in course.steps():
        pass
    assert torch.equal(learned.learned.tensors["classification"], course.so_far().learned.tensors["classification"])
    for asked, says in (((FIRST, 8, 0, 0.1, 0, 4), "steps"), (("all", 8, 2, 0.1, 0, 4), "something to learn")):
        with pytest.raises(AppError, match=says):
            client.predict(*asked, api_name="/learn")
