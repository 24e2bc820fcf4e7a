"""The experiment of CLIP+SAM: what it deals out, what it counts, and that it goes on where it stopped."""

import json

import pytest
import torch

from kit.data import toy_data
from kit.experiments import fma_wsss as experiment
from kit.fit import fit
from kit.learned import LearnedError
from kit.methods import FmaWsss

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = {"steps": 2, "horizon": 2, "warm_up": 0}


@pytest.fixture(scope="module")
def pipeline(clip):
    return fit(FmaWsss(clip, learned=None, context=2, coarse=SHORT, fine=SHORT), toy_data("train", 8), progress=False)


@pytest.fixture
def quick(monkeypatch, pipeline):
    """The command with a method that is learned already; what was asked to be learned is noted."""
    asked = []
    monkeypatch.setattr(experiment, "learned", lambda by_hand, data, seed, file: asked.append((data.labels_from, seed)) or pipeline)
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


def test_what_was_learned_is_taken_from_its_file(clip, tmp_path):
    by_hand, data, file = FmaWsss(clip, learned=None, context=2, coarse=SHORT, fine=SHORT), toy_data("train", 8), tmp_path / "work" / "a"
    first, again = (experiment.learned(by_hand, data, 1, file) for _ in range(2))
    assert first.settings.seed == 1 and again.settings == first.settings and again.learned.fingerprint == first.learned.fingerprint
    with pytest.raises(LearnedError, match="this was learned with settings"):
        experiment.learned(by_hand, data, 2, file)
    with pytest.raises(LearnedError, match="this was learned with labels from"):
        experiment.learned(by_hand, experiment.shuffled(data, 1), 1, file)


def test_halves_take_one_half_of_the_texts_from_what_was_learned(clip, pipeline):
    text = pipeline.opened.texts["classification"]
    halves = {name: half.opened.texts["classification"] for name, half in experiment.halves(pipeline).items()}
    classes, backgrounds = halves["learned classes"], halves["learned backgrounds"]
    assert torch.equal(classes[:20], text[:20]) and torch.equal(backgrounds[20:], text[20:])
    crafted = torch.cat([backgrounds[:20], classes[20:]])
    assert not torch.isclose(crafted, text).all(1).any()
    assert torch.allclose(crafted[1], clip.text(["a clean origami bicycle."])[0])


def test_masks_of_another_scene_and_an_oracle_stand_at_the_two_ends(clip):
    by_hand = FmaWsss(clip, learned=None)
    seen = [(one, by_hand.encode(one.image), experiment.masks_of(by_hand, one)) for one in toy_data("val", 6).samples(truth=True)]
    own, strange = (experiment.scores_of_stages(by_hand, seen, {"coarse": "vote"}, next_masks=other)["vote"][0] for other in (False, True))
    oracle = experiment.oracle_scores(seen)["oracle vote, level 0"][0]
    assert strange < own < oracle and oracle > 0.9


def test_the_recorded_experiment_goes_on_under_todays_settings(clip):
    about = json.loads(experiment.FILE.read_text())["about"]
    todays = {**about, "settings": FmaWsss(clip, learned=None).settings.to_dict()}
    del todays["kit"]
    names = {row["name"] for row in experiment.recorded(experiment.FILE, todays)}
    assert {*experiment.BY_HAND.values(), *experiment.LEARNED.values()} <= names


def test_the_table_has_a_mean_and_a_deviation():
    rows = [{"name": "fine seeds", "seed": seed, "miou": miou, "miou_two_or_more": 0.5} for seed, miou in ((0, 0.5), (1, 0.7))]
    told = experiment.table(rows, {"images": 5, "learned_from": 7})
    line = next(line for line in told.splitlines() if line.startswith("fine seeds"))
    assert line.split() == ["fine", "seeds", "60.0", "±", "14.1", "50.0", "±", "0.0"]
    assert "–" in next(line for line in told.splitlines() if line.startswith("coarse seeds "))
