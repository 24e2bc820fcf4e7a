"""The experiment of CLIP+SAM: what it deals out, what it counts, and that it goes on where it stopped."""

import json

import pytest
import torch

from kit.data import toy_data
from kit.encode import Clip
from kit.experiments import fma_wsss as experiment
from kit.methods import FmaWsss

QUICK = {"steps": 2, "horizon": 2, "warm_up": 0, "fine_steps": 2, "fine_horizon": 2, "context": 2}


@pytest.fixture(scope="module")
def clip():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Clip.load("tiny")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def method(clip):
    method = FmaWsss(clip, **QUICK)
    for _ in method.fit(toy_data("train", 8)):
        pass
    return method


@pytest.fixture
def quick(monkeypatch, method):
    """The command with a method that is learned already; what was asked to be learned is noted."""
    asked = []
    monkeypatch.setattr(experiment, "learned", lambda clip, data, seed, file: asked.append((data.labels_from, seed)) or method)
    return asked


def run(file, seeds=2):
    experiment.main(out=file, seeds=seeds, scenes=8, judged=3)
    return json.loads(file.read_text())


def test_it_records_every_stage_and_control_and_goes_on_where_it_stopped(tmp_path, quick, capsys):
    file = tmp_path / "numbers.json"
    first = run(file, seeds=1)
    names = {row["name"] for row in first["rows"]}
    wanted = [*experiment.BY_HAND.values(), *experiment.LEARNED.values(), *experiment.ORACLE.values(), *experiment.SHUFFLED.values()]
    assert names == {*wanted, *experiment.STRANGE.values(), *experiment.PARTS.values()}
    assert all(0 <= row["miou"] <= 1 for row in first["rows"])
    assert [seed for _, seed in quick] == [0, 0] and "wrong scenes" in quick[1][0] and "wrong scenes" not in quick[0][0]

    again = run(file, seeds=2)
    assert again["rows"][: len(first["rows"])] == first["rows"]
    assert [seed for _, seed in quick] == [0, 0, 1, 1]  # nothing of the first seed was learned once more
    told = capsys.readouterr().out
    assert "over 2 seeds" in told and "±" in told and all(name in told for name in names)
    assert run(file, seeds=2) == again and len(quick) == 4


def test_a_file_of_other_settings_is_not_added_to(tmp_path, quick):
    file = tmp_path / "numbers.json"
    run(file, seeds=1)
    with pytest.raises(SystemExit, match="other settings"):
        experiment.main(out=file, seeds=1, scenes=9, judged=3)


def test_shuffled_labels_are_the_same_labels_on_other_scenes():
    data = toy_data("train", 12, size=64)
    dealt = experiment.shuffled(data, seed=1)
    before, after = ([entry.names() for entry in some.entries] for some in (data, dealt))
    assert sorted(before) == sorted(after) and before != after
    assert [entry.names() for entry in experiment.shuffled(data, seed=1).entries] == after
    assert [entry.names() for entry in experiment.shuffled(data, seed=2).entries] != after
    assert (data.entries[3].image() == dealt.entries[3].image()).all()


def test_halves_take_one_half_of_the_texts_from_what_was_learned(clip, method):
    text = method.learned.texts["classification"]
    halves = {name: half.learned.texts["classification"] for name, half in experiment.halves(method).items()}
    classes, backgrounds = halves["learned classes"], halves["learned backgrounds"]
    assert torch.equal(classes[:20], text[:20]) and torch.equal(backgrounds[20:], text[20:])
    by_hand = torch.cat([backgrounds[:20], classes[20:]])
    assert not torch.isclose(by_hand, text).all(1).any()
    assert torch.allclose(by_hand[1], clip.text(["a clean origami bicycle."])[0])


def test_masks_of_another_scene_and_an_oracle_stand_at_the_two_ends(clip):
    method = FmaWsss(clip)
    val = toy_data("val", 6)
    scenes = [(sample, method.encode(sample.image)) for sample in val.samples(truth=True)]
    own = experiment.scores_of_stages(method, scenes, {"coarse": "vote"})["vote"][0]
    strange = experiment.scores_of_stages(method, scenes, {"coarse": "vote"}, next_masks=True)["vote"][0]
    oracle = experiment.oracle_scores(method, val)["oracle vote, level 0"][0]
    assert strange < own < oracle and oracle > 0.9


def test_the_table_has_a_mean_and_a_deviation():
    rows = [{"name": "fine seeds", "seed": seed, "miou": miou, "miou_two_or_more": 0.5} for seed, miou in ((0, 0.5), (1, 0.7))]
    told = experiment.table(rows, {"images": 5, "learned_from": 7})
    line = next(line for line in told.splitlines() if line.startswith("fine seeds"))
    assert line.split() == ["fine", "seeds", "60.0", "±", "14.1", "50.0", "±", "0.0"]
    assert "–" in next(line for line in told.splitlines() if line.startswith("coarse seeds "))
