"""The tiny CLIP's training: pixels and words only, a killed run ends like one that was not, the shipped model fits the world."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from kit.encode import TINY, Clip, CutTokenizer, load_tiny, mask_of_positions
from kit.toy import train as training_module
from kit.toy.scene import library_versions, world_hash
from kit.toy.train import (
    Batches,
    Settings,
    TrainingError,
    TrainingPicture,
    contrastive_loss,
    image_vectors,
    load_descriptions,
    main,
    new_model,
    rate_factor,
    render_pictures,
    text_vectors,
    train,
    watched_maps,
    write_model,
)

SMALL = Settings(
    steps=6,
    batch=16,
    pictures=64,
    rendered=32,
    size=32,
    width=32,
    head_width=16,
    radius=(1, None),
    text_width=32,
    text_blocks=1,
    text_heads=2,
    joint=16,
    drop_until=0.5,
    warm_up=2,
)
QUIET = {"processes": 1, "loaders": 0, "watched": 2, "save_seconds": 1e9, "watch_seconds": 1e9}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with the 64 pictures rendered; runs of several tests lie in it side by side."""
    folder = tmp_path_factory.mktemp("cache")
    render_pictures(SMALL, folder, processes=1)
    return folder


@pytest.fixture(scope="module")
def trained(cache):
    return train(SMALL, cache, **QUIET)


def test_the_weights_it_writes_can_be_loaded(trained, tmp_path):
    training, run = trained
    write_model(training, tmp_path)
    for folder in (tmp_path, run):
        clip = load_tiny(folder / TINY.name)
        assert clip.is_tiny and clip.radius == (1, None)
        tokens = clip.encode(torch.zeros(1, 3, 32, 32), layers=(0,))
        assert torch.isfinite(tokens.last_input).all()
        assert clip.unknown_words("a photo of a boat") == [] and clip.unknown_words("a zeppelin") == ["zeppelin"]
        own = training.model.state_dict()
        assert all(torch.equal(tensor, own[name].half().float()) for name, tensor in clip.model.state_dict().items())
    about = json.loads((tmp_path / "tiny_clip.json").read_text())
    assert about["world"] == world_hash() and about["training"]["pictures_seen"] == 6 * 16
    log = (tmp_path / "training_log.csv").read_text().splitlines()
    assert log[0] == "minutes,step,pictures,loss,scale,class_map,plain,softmax" and len(log) == 2


def test_the_last_block_still_reads_every_patch_equally(trained):
    clip = trained[0].clip()
    attention = clip.blocks[-1].attn
    assert not attention.in_proj_weight[: 2 * 32].any() and not attention.in_proj_bias[: 2 * 32].any()
    assert attention.in_proj_weight[2 * 32 :].all(), "its values are to learn"
    seen = clip.encode(torch.randn(1, 3, 32, 32), layers=(0, 1)).attention
    assert torch.allclose(seen[0, 1], torch.full((17, 17), 1 / 17))
    assert seen[0, 0, 1, 16] == 0 and seen[0, 0, 0, 16] > 0, "the first block is local, its class token sees all"


def test_a_killed_and_continued_run_ends_with_the_same_weights(trained, cache, tmp_path):
    pictures = render_pictures(SMALL, cache, processes=1)
    shutil.copytree(pictures, tmp_path / pictures.name)
    first, _ = train(SMALL, tmp_path, until_step=2, **QUIET)
    assert first.step == 2
    second, _ = train(SMALL, tmp_path, **QUIET)
    assert second.step == 6 and len(second.history) == 2
    whole = trained[0].model.state_dict()
    different = [name for name, tensor in second.model.state_dict().items() if not torch.equal(tensor, whole[name])]
    assert not different, f"these weights depend on where the run was interrupted: {different}"
    assert not torch.equal(first.model.visual.conv1.weight, second.model.visual.conv1.weight)


def test_a_finished_run_is_kept_and_restart_begins_anew(cache):
    settings = dataclasses.replace(SMALL, steps=1, seed=3)
    train(settings, cache, **QUIET)
    again, run = train(settings, cache, **QUIET)
    assert again.step == 1 and len(again.history) == 1
    kept = (run / "checkpoint.pt").stat().st_mtime_ns
    train(settings, cache, restart=True, **QUIET)
    assert (run / "checkpoint.pt").stat().st_mtime_ns > kept


def test_no_mask_can_reach_the_training(cache):
    folder = render_pictures(SMALL, cache, processes=1)
    batch = Batches(SMALL, folder)[0]
    assert batch._fields == ("pixels", "ids", "positives", "kept")
    assert batch.pixels.shape == (16, 3, 32, 32) and batch.pixels.dtype == torch.float32
    assert batch.ids.dtype == torch.long and batch.positives.shape == (16, len(batch.ids)) and batch.kept.shape == (16, 8)
    assert (batch.positives.sum(1) == SMALL.captions).all()
    assert sorted(path.name for path in folder.iterdir()) == ["pictures.npy", "scenes-0000000.json"], (
        "the cache holds pictures and what captions say, no map"
    )
    assert np.load(folder / "pictures.npy", mmap_mode="r").shape == (64, 32, 32, 3)
    fields = {"objects", "place", "present_stuff", "style"}
    assert {field.name for field in dataclasses.fields(TrainingPicture)} == fields
    assert all(set(row) == fields for row in json.loads((folder / "scenes-0000000.json").read_text()))
    assert len(load_descriptions(folder)) == 64


def test_a_killed_rendering_goes_on_with_the_missing_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(training_module, "CHUNK", 8)
    settings = dataclasses.replace(SMALL, pictures=16)
    folder = render_pictures(settings, tmp_path, processes=1)
    whole = np.load(folder / "pictures.npy")
    (folder / "scenes-0000008.json").unlink()
    damaged = np.lib.format.open_memmap(folder / "pictures.npy", "r+")
    damaged[0], damaged[8:] = 7, 0
    damaged.flush()
    render_pictures(settings, tmp_path, processes=1)
    now = np.load(folder / "pictures.npy")
    assert (now[8:] == whole[8:]).all() and (now[0] == 7).all(), "only the chunk without its mark is drawn again"


def test_every_picture_comes_once_an_epoch(cache):
    batches = Batches(SMALL, render_pictures(SMALL, cache, processes=1))
    first, second = (np.concatenate([batches._chosen(4 * epoch + step) for step in range(4)]) for epoch in range(2))
    assert sorted(first) == sorted(second) == list(range(64)) and (first != second).any()


def test_the_same_sentence_of_two_pictures_is_a_positive_of_both():
    image, text = torch.eye(2, 4), torch.eye(2, 4)[:1]
    shared, other = torch.ones(2, 1), torch.eye(2)
    assert contrastive_loss(image, text, shared, torch.tensor(1.0)) == pytest.approx(
        0.5 * (np.log(1 + np.exp(-1)) + 0.5), abs=1e-6
    )  # one text: the picture's side is sure
    right = contrastive_loss(image, torch.eye(2, 4), other, torch.tensor(20.0))
    wrong = contrastive_loss(image, torch.eye(2, 4), other.flip(0), torch.tensor(20.0))
    assert right < 1e-6 < 19 < wrong


def test_training_computes_what_the_kit_computes_afterwards():
    model = new_model(SMALL, 20).eval()
    clip_tokens, pixels = CutTokenizer(range(17)), torch.randn(2, 3, 32, 32)
    ids = torch.tensor([[18, 3, 4, 19, 0], [18, 5, 19, 0, 0]])
    with torch.no_grad():
        class_token, _ = image_vectors(model, pixels, torch.zeros(2, 0, dtype=torch.long), SMALL.radius)
        words = text_vectors(model, ids)
        everything, _ = image_vectors(model, pixels, torch.arange(16).expand(2, 16), SMALL.radius)
        expected = model.encode_text(torch.nn.functional.pad(ids, (0, SMALL.context - 5)), normalize=True)
    assert torch.allclose(words, expected, atol=1e-5)
    assert torch.allclose(everything, class_token, atol=1e-5), "keeping all patches is the same as dropping none"
    clip = Clip(model, clip_tokens, radius=SMALL.radius)
    tokens = clip.encode(pixels)
    last = clip.blocks[-1]
    visual = clip.model.visual
    after = tokens.last_input + last.attn.out_proj(
        (last.ln_1(tokens.last_input) @ last.attn.in_proj_weight[64:].T + last.attn.in_proj_bias[64:]).mean(1, keepdim=True)
    )
    after = after + last.mlp(last.ln_2(after))
    assert torch.allclose(visual.ln_post(after[:, 0]) @ visual.proj, class_token, atol=1e-5)


def test_pixels_are_normalised_as_encode_does_it():
    clip = Clip(new_model(SMALL, 20), CutTokenizer(range(17)), radius=SMALL.radius)
    assert torch.equal(clip.mean.flatten(), torch.tensor(training_module.PIXEL_MEAN)) and torch.equal(
        clip.std.flatten(), torch.tensor(training_module.PIXEL_DEVIATION)
    )


def test_dropped_patches_keep_their_own_neighbourhood():
    mask = mask_of_positions(torch.tensor([[[0, 0], [0, 2], [5, 5]]]), 2)
    assert mask[0, 1, 2] == 0 and mask[0, 1, 3] == -torch.inf and mask[0, 1, 0] == -torch.inf and (mask[0, 0] == 0).all()


def test_watched_maps_know_a_perfect_answer():
    assert training_module._mean_average_precision(np.array([[0.9], [0.1], [0.8]]), np.array([[True], [False], [True]])) == 1
    assert training_module._mean_average_precision(np.array([[0.1], [0.9]]), np.array([[True], [False]])) == 0.5
    truth = np.zeros((8, 8), np.uint8)
    truth[:, 4:] = 4
    maps = torch.tensor(truth == 4).float()[None, None]
    assert np.array_equal(training_module.voc_labels(maps, [4], truth.shape), truth)
    assert not (training_module.voc_labels(1 - maps, [4], truth.shape) == truth).any()


def test_watching_changes_nothing(trained):
    training, _ = trained
    before = [parameter.clone() for parameter in training.model.parameters()]
    values = watched_maps(training.clip(), [training_module.draw(0, size=64)])
    assert set(values) == {"class_map", "plain", "softmax"} and all(0 <= value <= 1 for value in values.values())
    assert training.model.training and all(
        torch.equal(old, new) and new.requires_grad for old, new in zip(before, training.model.parameters(), strict=True)
    )


def test_the_rate_warms_up_and_falls_to_one_percent():
    settings = Settings(steps=1000)
    factors = [rate_factor(settings, step) for step in range(1000)]
    assert factors[0] < 0.02 and max(factors) == max(factors[55:70]) and factors[-1] == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize("change", [{"steps": 0}, {"pictures": 8}, {"size": 33}, {"radius": (2, 2)}, {"width": 40}, {"rendered": 16}])
def test_settings_that_cannot_be_trained_are_refused(change):
    with pytest.raises(TrainingError, match="expected"):
        dataclasses.replace(SMALL, **change)


def test_the_command_says_what_is_wrong(capsys):
    with pytest.raises(SystemExit):
        main(["--steps", "0", "--threads", "1"])
    assert "expected at least one step" in capsys.readouterr().err


def test_the_shipped_model_belongs_to_the_shipped_world():
    about = json.loads(TINY.with_suffix(".json").read_text())
    assert "versions" in about.get("training", {}), "the shipped tiny CLIP was not made by `python -m kit.toy.train`: retrain it"
    made_with = {name: about["training"]["versions"][name] for name in library_versions()}
    if made_with != library_versions():
        pytest.skip(f"the world's bytes may differ between library versions: trained with {made_with}, here {library_versions()}")
    assert about["world"] == world_hash(), (
        "the drawn world has changed since the tiny CLIP was trained: retrain it with `python -m kit.toy.train`"
    )
