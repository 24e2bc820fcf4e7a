"""What is learned from: pieces of picture and seed cut alike, colours within bounds, and labels that fit."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from kit.data import toy_data
from kit.fit import FitError
from kit.views import AugmentedViews, CachedViews, augmented, colour_jitter, embedding, label_rows, some_images

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    return toy_data("train", 8, size=64)


def gradient(height, width):
    """A picture in which every pixel says where it is, and labels that say the same."""
    rows, columns = np.mgrid[:height, :width]
    labels = (columns >= width // 2) + 2 * (rows >= height // 2)
    return np.stack([rows, columns, rows * 0], 2).astype(np.uint8), labels.astype(np.uint8)


def test_pieces_of_picture_and_seed_are_cut_alike(monkeypatch):
    monkeypatch.setattr("kit.views.JITTER", 0.0)
    image, labels = gradient(200, 240)
    mirrored = 0
    for chance in range(12):
        view, cut = augmented(image, labels, crop=96, scale=(240, 240), random=np.random.default_rng(chance))
        assert view.shape == (96, 96, 3) and cut.shape == (96, 96)
        assert np.array_equal(cut, (view[..., 1] >= 120).astype(np.uint8) + 2 * (view[..., 0] >= 100))
        mirrored += view[0, 0, 1] > view[0, -1, 1]
    assert 0 < mirrored < 12


@pytest.mark.parametrize("size", [(300, 50), (50, 300), (96, 96), (500, 375)])
def test_every_picture_is_large_enough_for_its_piece(size):
    for chance in range(4):
        view, cut = augmented(*gradient(*size), crop=96, scale=(100, 160), random=np.random.default_rng(chance))
        assert view.shape == (96, 96, 3) and cut.shape == (96, 96)


def test_the_longer_side_spans_the_scale(monkeypatch):
    lengths, resize = set(), Image.Image.resize
    noted = lambda self, size, *more, **named: lengths.add(max(size)) or resize(self, size, *more, **named)  # noqa: E731
    monkeypatch.setattr(Image.Image, "resize", noted)
    for chance in range(60):
        augmented(*gradient(100, 80), crop=8, scale=(20, 23), random=np.random.default_rng(chance))
    assert lengths == {20, 21, 22, 23}


def test_colours_change_within_bounds():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    changed = [colour_jitter(image, np.random.default_rng(chance)) for chance in range(30)]
    assert all(one.dtype == np.uint8 and one.shape == image.shape for one in changed)
    assert sum(np.array_equal(one, image) for one in changed) < 10  # one in sixteen stays as it is
    black = np.zeros((4, 4, 3), np.uint8)
    assert max(colour_jitter(black, np.random.default_rng(chance)).max() for chance in range(30)) <= round(25 * 1.4)  # nothing is reflected


def test_augmented_views_have_one_size_and_their_own_chance(clip, data):
    views = AugmentedViews(clip, data, crop=48, scale=(60, 90))
    seed = lambda index: np.full((64, 64), index, np.uint8)  # noqa: E731
    tokens, seeds = views.tokens_and_seeds([3, 5], torch.Generator().manual_seed(0), seed)
    assert tokens.grid == (6, 6) and seeds.shape == (2, 48, 48) and seeds.flatten(1).amax(1).tolist() == [3, 5]
    same_again, _ = views.tokens_and_seeds([3, 5], torch.Generator().manual_seed(0), seed)
    otherwise, _ = views.tokens_and_seeds([3, 5], torch.Generator().manual_seed(1), seed)
    assert torch.equal(tokens.last_input, same_again.last_input) and not torch.equal(tokens.last_input, otherwise.last_input)
    assert [step.task for step in views.fill()] == ["labels"] and views.names == [entry.names() for entry in data.entries]
    with pytest.raises(FitError, match="multiple of tiny's patch of 8 pixels, got 50"):
        AugmentedViews(clip, data, crop=50, scale=(60, 90))


def test_cached_views_are_the_pictures_encoded_once(clip, data):
    views, calls = CachedViews(clip, data, prepare=clip.prepare), clip.calls
    assert [step.step for step in views.fill()][-1] == 8
    made = clip.calls
    tokens, seeds = views.tokens_and_seeds([5, 2], torch.Generator(), lambda index: data.entries[index].truth())
    alone = clip.encode(torch.stack([clip.prepare(data.entries[index].image()) for index in (5, 2)]), layers=())
    torch.testing.assert_close(tokens.last_input, alone.last_input)
    torch.testing.assert_close(views.embeddings([5, 2], torch.Generator()), embedding(alone))
    assert np.array_equal(seeds[1], data.entries[2].truth()) and made > calls and clip.calls == made + 1
    assert torch.equal(some_images(tokens, [1]).last_input, tokens.last_input[1:])


def test_cached_views_refuse_what_does_not_fit(clip, data):
    with pytest.raises(FitError, match='GB allowed: take fewer pictures, or views "augmented"'):
        list(CachedViews(clip, data, prepare=clip.prepare, most_bytes=1000).fill())
    other = toy_data("train", 1, size=80)
    mixed = dataclasses.replace(data, entries=(*data.entries, *other.entries))
    for prepare in (clip.prepare, lambda image: clip.prepare(image, side=64)):  # the second: of one size, but their seeds would not be
        with pytest.raises(FitError, match="pictures of one size"):
            list(CachedViews(clip, mixed, prepare=prepare).fill())


def test_labels_outside_the_classes_are_refused():
    assert label_rows([("cat",), (), ("dog", "cat")], ("cat", "dog")).tolist() == [[1, 0], [0, 0], [1, 1]]
    with pytest.raises(FitError, match="a picture shows dragon, which is none of the 2 classes"):
        label_rows([("dragon",)], ("cat", "dog"))
