"""The loop of everything learnable, on a line through points whose slope is known, and then on a method of one's own."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from kit.data import toy_data
from kit.fit import FitError, Schedule, batch_of_step, descend, fit, fit_steps
from kit.methods import METHODS
from kit.settings import SettingsError


class Line:
    """y = 3 x; the slope is to be found from 40 points, with a little noise that is drawn anew at each step."""

    count = 40

    def __init__(self, start=0.0):
        self.slope = nn.Parameter(torch.tensor([start]))
        self.x = torch.linspace(-1, 1, self.count)
        self.seen = []

    def parameters(self):
        return [self.slope]

    def losses(self, indices, random):
        self.seen.append(indices)
        x = self.x[indices] + 0.01 * torch.randn(len(indices), generator=random)
        return {"square": ((self.slope * x - 3 * self.x[indices]) ** 2).mean()}


SCHEDULE = Schedule(60, 0.3, warm_up=5, warm_rate=1e-3)


def learned(task=None, schedule=SCHEDULE, **options):
    task = task or Line()
    steps = list(descend(task, schedule, **{"batch": 8, **options}))
    return task.slope.detach().clone(), steps, task


def test_it_finds_the_slope_and_tells_every_step():
    slope, steps, _ = learned()
    assert abs(slope.item() - 3) < 0.15  # it began at 0
    assert [step.step for step in steps] == list(range(1, 61)) and {step.steps for step in steps} == {60}
    assert steps[-1].loss < 0.01 * steps[0].loss and steps[0].losses.keys() == {"square"}
    assert all(step.seconds > 0 for step in steps)


def test_the_rate_warms_up_then_falls_as_a_cosine():
    rates = [SCHEDULE.at(step) for step in range(60)]
    assert rates[:5] == [1e-3] * 5 and rates[5] == 0.3
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert SCHEDULE.at(5 + 55 / 2) == pytest.approx(0.15)  # halfway down
    assert [step.rate for step in learned()[1]] == rates


def test_every_epoch_shows_every_picture_once_in_another_order():
    *_, task = learned(schedule=Schedule(10, 0.1))
    first, second = (sum(task.seen[start : start + 5], []) for start in (0, 5))
    assert sorted(first) == sorted(second) == list(range(40)) and first != second
    assert batch_of_step(40, 8, 3, seed=0) != batch_of_step(40, 8, 3, seed=1)
    assert len(batch_of_step(43, 8, 4, seed=0)) == 8 and sum(len(batch_of_step(43, 8, step, 0)) for step in range(5)) == 40  # 3 are dropped


def test_the_same_seed_learns_the_same_and_another_does_not():
    assert torch.equal(learned(seed=4)[0], learned(seed=4)[0])
    assert not torch.equal(learned(seed=4)[0], learned(seed=5)[0])


def test_parts_add_up_to_the_mean_of_the_batch():
    class Quiet(Line):
        def losses(self, indices, random):
            return {"square": ((self.slope * self.x[indices] - 3 * self.x[indices]) ** 2).mean()}

    whole, cut = learned(Quiet(), batch=8), learned(Quiet(), batch=8, parts=4)
    assert torch.allclose(whole[0], cut[0], atol=1e-6)
    assert whole[1][7].loss == pytest.approx(cut[1][7].loss, rel=1e-5)


@pytest.mark.parametrize("left_at", [1, 23])
def test_a_run_that_was_left_goes_on_the_same_way(tmp_path, left_at):
    file = tmp_path / "way.pt"
    task = Line()
    steps = descend(task, SCHEDULE, batch=8, checkpoint=file, about={"a": 1})
    for _ in range(left_at):
        next(steps)
    steps.close()
    assert file.exists()
    again, later, _ = learned(Line(start=77.0), checkpoint=file, about={"a": 1})  # whatever it was made with, the file counts
    assert [step.step for step in later] == list(range(left_at + 1, 61))
    assert torch.equal(again, learned()[0])
    assert torch.equal(learned(Line(start=77.0), checkpoint=file, about={"a": 1})[0], again)  # nothing is left to do, and nothing is lost


def test_a_killed_run_goes_on_the_same_way(tmp_path):
    script = textwrap.dedent("""
        import os, sys
        from tests.test_fit import Line, SCHEDULE
        import kit.fit
        kit.fit.SAVE_EVERY = 0.0
        for step in kit.fit.descend(Line(), SCHEDULE, batch=8, checkpoint=sys.argv[1]):
            if step.step == 31:
                os.kill(os.getpid(), 9)
    """)
    file = tmp_path / "way.pt"
    assert subprocess.run([sys.executable, "-c", script, str(file)], timeout=120).returncode == -9
    slope, steps, _ = learned(checkpoint=file)
    assert steps[0].step == 32  # 31 were made and saved
    assert torch.equal(slope, learned()[0])


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    file = tmp_path / "way.pt"
    steps = descend(Line(), SCHEDULE, batch=8, checkpoint=file)
    next(steps)
    steps.close()
    for options in ({"batch": 4}, {"seed": 1}, {"about": {"a": 1}}):
        with pytest.raises(FitError, match="other settings"):
            next(descend(Line(), SCHEDULE, **{"batch": 8, "checkpoint": file, **options}))
    file.write_bytes(b"nothing of ours")
    with pytest.raises(FitError, match="no checkpoint of the kit's"):
        next(descend(Line(), SCHEDULE, batch=8, checkpoint=file))


def test_a_loss_that_explodes_stops_with_a_sentence():
    with pytest.raises(FitError, match="lower the learning rate"):
        learned(schedule=Schedule(200, 1e6))


def test_pictures_that_teach_nothing_leave_everything_as_it_is():
    class Silent(Line):
        def losses(self, indices, random):
            return super().losses(indices, random) if len(self.seen) < 3 else self.seen.append(indices) or {}

    slope, steps, _ = learned(Silent())
    assert len(steps) == 60 and steps[10].loss == 0
    assert torch.equal(slope, learned(Silent(), schedule=SCHEDULE)[0])
    reached = Line()
    for step in descend(reached, SCHEDULE, batch=8):
        if step.step == 3:
            break
    assert torch.equal(slope, reached.slope.detach())


@pytest.mark.parametrize("options", [{"batch": 0}, {"parts": 0}, {"parts": 9}, {"parts": 3, "world": 2}, {"rank": 1}])
def test_what_cannot_be_shared_out_is_refused(options):
    with pytest.raises(FitError):
        learned(**options)


@pytest.mark.parametrize("values", [(10, 0.1, 10), (10, 0.0), (10, float("nan")), (0, 0.1)])
def test_impossible_schedules_are_refused(values):
    with pytest.raises(FitError):
        Schedule(*values)


def learned_by(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    task = Line()
    steps = list(descend(task, SCHEDULE, batch=8, parts=2, rank=rank, world=2))
    torch.save((task.slope.detach(), [step.loss for step in steps]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_learn_what_one_learns_with_two_parts(tmp_path):
    torch.multiprocessing.spawn(learned_by, (tmp_path,), nprocs=2)
    alone, steps, _ = learned(parts=2)
    for rank in (0, 1):
        slope, losses = torch.load(tmp_path / f"{rank}.pt")
        assert torch.allclose(slope, alone, atol=1e-6)
        assert losses == pytest.approx([step.loss for step in steps], rel=1e-5)


@pytest.fixture(scope="module")
def data():
    return toy_data("train", 8, size=64)


@pytest.fixture(scope="module")
def pipeline(own, clip):
    return own(clip, side=64)


def test_fit_runs_to_its_end_and_gives_the_method_that_has_learned(pipeline, data, tmp_path):
    better = fit(pipeline, data, tmp_path / "texts.safetensors", steps=6, losses={"contrastive": 2.0}, progress=False)
    learning = better.settings.learning
    assert (learning.steps, learning.losses, better.learned.classes) == (6, {"contrastive": 2.0}, data.classes)
    assert pipeline.learned is None and list(tmp_path.iterdir()) == [tmp_path / "texts.safetensors"]
    loaded = pipeline.method(pipeline.clip, learned=tmp_path / "texts.safetensors")
    assert loaded.settings == better.settings and loaded.learned.fingerprint == better.learned.fingerprint
    about = loaded.learned.about
    assert (about["method"], about["data"], about["split"], about["images"], about["tasks"]) == ("otsu", "toy", "train", 8, ["texts"])
    assert about["code"] == pipeline.code and "learned from 8 images of split train of toy" in loaded.learned.told()
    sample = next(data.samples())
    assert not torch.equal(loaded.segment(sample).stages["cam"], pipeline.segment(sample).stages["cam"])


def test_its_steps_can_be_had_and_so_far_answers_on_the_way(pipeline, data):
    learning, seen = fit_steps(pipeline, data, steps=5), []
    for step in learning:
        so_far = learning.so_far()
        seen.append((step.task, step.step, step.steps, None if so_far.learned is None else so_far.learned.fingerprint))
    assert seen[0] == ("encoding", 8, 8, None) and [entry[:3] for entry in seen[1:]] == [("texts", step, 5) for step in range(1, 6)]
    assert len({fingerprint for *_, fingerprint in seen[1:]}) == 5 and learning.so_far().learned.fingerprint == seen[-1][-1]


def test_steps_and_rate_keep_the_shape_of_the_schedule(own, clip, data):
    pipeline = own(clip, learning__steps=50, learning__warm_up=20, learning__horizon=90)
    shorter = fit_steps(pipeline, data, steps=10, rate=0.5).pipeline.settings.learning
    assert (shorter.steps, shorter.warm_up, shorter.horizon, shorter.rate) == (10, 1, None, 0.5)
    coarse = METHODS["fma-wsss"](clip)
    both = fit_steps(coarse, data, rate=0.02).pipeline.settings
    assert both.coarse.rate == 0.02 and both.fine.rate / coarse.settings.fine.rate == pytest.approx(0.02 / coarse.settings.coarse.rate)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lessons": "words"}, FitError, "expected lessons out of texts, in this order, got words"),
        ({"lessons": ()}, FitError, "got none"),
        ({"losses": {"contrast": 2}}, FitError, "no loss contrast here, only contrastive; did you mean contrastive"),
        ({"world": 2}, FitError, "expected a path"),
        ({"steps": 0}, SettingsError, "expected steps to be a whole number from 1 to 1,000,000, got 0"),
        ({"learning__rat": 1}, SettingsError, "unknown setting learning.rat: did you mean rate"),
    ],
)
def test_what_cannot_be_learned_is_refused(pipeline, data, options, error, message):
    with pytest.raises(error, match=message):
        fit_steps(pipeline, data, **options)


def test_a_method_without_lessons_and_data_without_pictures_are_refused(pipeline, clip, data_of):
    with pytest.raises(FitError, match="clip-es learns nothing"):
        fit_steps(METHODS["clip-es"](clip), data_of([]))
    with pytest.raises(FitError, match="expected pictures to learn from"):
        fit_steps(pipeline, data_of([]))


def test_a_folder_that_cannot_be_made_is_told(pipeline, data, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FitError, match="cannot be made"):
        next(iter(fit_steps(pipeline, data, tmp_path / "file" / "texts.safetensors")))
