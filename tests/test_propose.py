"""Class-free masks: superpixels that nest, and SAM's rules on a small random SAM."""

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes, nms

from kit import propose
from kit.data import toy_samples
from kit.propose import LIGHT, PAPER, ProposalError, Proposals, Sam, SamSettings, chosen, rock_sand_water, sam_proposals, superpixels
from kit.score import Confusion
from kit.vote import oracle_vote
from kit.weights import WeightsError
from kit.words import VOC_CLASSES

SIDE = 128  # of the small SAM's input
EVERYTHING = SamSettings(
    points_per_side=8, crop_layers=0, iou=0.5, iou_offsets=(0, 0, 0), stability=0.7, box_overlap=1, level_bonus=(0, 0, 0),
    crop_box_overlap=1, smallest=0, covered=2, points_per_batch=24,
)  # fmt: skip


def rectangle(*box, size=(20, 30)):
    top, left, bottom, right = box
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def proposals(*masks, levels=None):
    return Proposals(torch.stack(masks), torch.tensor(levels or [0] * len(masks)), "by hand")


@pytest.fixture(scope="module")
def picture():
    rows, columns = np.mgrid[:192, :256]
    return np.stack([columns, rows, ((columns // 64 + rows // 64) % 2) * 200], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def sam():
    """A SAM from the library's own configuration, with weights large enough that its masks have shapes."""
    from transformers import SamConfig, SamImageProcessor, SamModel

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = SamConfig(
        vision_config={
            "hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
            "patch_size": 16, "window_size": 4, "global_attn_indexes": [1], "num_pos_feats": 16, "mlp_dim": 64,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    )  # fmt: skip
    torch.manual_seed(3)
    model = SamModel(config)
    for values in model.parameters():
        if values.dim() > 1:
            torch.nn.init.normal_(values, std=0.4)
    processor = SamImageProcessor(
        size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE}, mask_size={"longest_edge": 32},
        mask_pad_size={"height": 32, "width": 32},
    )  # fmt: skip
    yield Sam(model.eval().requires_grad_(False), processor, "small")
    torch.set_num_threads(threads)


def result(steps):
    *_, last = steps
    return last.proposals


def test_proposals_check_themselves():
    mask = rectangle(0, 0, 2, 2)
    for levels, masks, word in (
        (torch.tensor([3]), mask[None], "0, 1 or 2"),
        (torch.tensor([1.0]), mask[None], "whole numbers"),
        (torch.tensor([1, 2]), mask[None], "levels"),
        (torch.tensor([1]), mask[None].float(), "bool"),
        (torch.tensor([1]), torch.zeros_like(mask)[None], "empty"),
    ):
        with pytest.raises(ValueError, match=word):
            Proposals(masks, levels, "by hand")
    with pytest.raises(ValueError, match="source"):
        Proposals(mask[None], torch.tensor([1]), " ")
    assert len(Proposals(torch.zeros(0, 4, 5, dtype=torch.bool), torch.zeros(0, dtype=torch.long), "nobody")) == 0


def test_some_of_the_masks_keep_what_belongs_to_them():
    three = dataclasses.replace(
        proposals(rectangle(0, 0, 1, 1), rectangle(0, 0, 2, 2), rectangle(0, 0, 3, 3), levels=[0, 1, 2]), ious=torch.tensor([0.1, 0.2, 0.3])
    )
    two = chosen(three, torch.tensor([2, 0]))
    assert two.masks.flatten(1).sum(1).tolist() == [9, 1] and two.levels.tolist() == [2, 0]
    assert two.ious.tolist() == pytest.approx([0.3, 0.1]) and two.stability is None and two.source == "by hand"


def test_superpixels_nest_and_cover_the_picture_once_a_level():
    image = next(toy_samples("val", 1)).image
    found = superpixels(image)
    assert found.source == "superpixels"
    levels = [found.masks[found.levels == level].flatten(1) for level in range(3)]
    assert [len(level) for level in levels][1:] == [80, 30] and 80 < len(levels[0]) <= 250
    for level in levels:
        assert (level.sum(0) == 1).all()
    for finer, coarser in ((levels[0], levels[1]), (levels[1], levels[2])):
        inside = (finer.float() @ coarser.float().T) / finer.sum(1, keepdim=True)  # share of each finer region in each coarser one
        assert (inside.amax(1) == 1).all()


def test_superpixels_follow_the_drawing():
    """The bound that voting has on drawn scenes; a grid of as many squares would reach less."""
    scores = [Confusion(("background", *VOC_CLASSES)) for _ in range(4)]
    for sample in toy_samples("val", 5):
        found = superpixels(sample.image)
        for level in range(3):
            labels = oracle_vote(sample.truth, chosen(found, found.levels == level)).labels
            scores[level].add(sample.truth, labels.numpy())
        cells = torch.arange(160) * 6 // 160
        squares = (cells[:, None] * 6 + cells) == torch.arange(36)[:, None, None]
        scores[3].add(sample.truth, oracle_vote(sample.truth, proposals(*squares)).labels.numpy())
    fine, middle, coarse, grid = (score.miou() for score in scores)
    assert fine >= middle >= coarse > 0.8 > grid + 0.2 and fine > 0.93


def test_superpixels_of_a_plain_picture_and_of_one_pixel():
    for size in ((40, 50), (1, 1), (1, 7)):
        found = superpixels(np.full((*size, 3), 90, np.uint8))
        assert found.levels.tolist() == [0, 1, 2] and found.masks.all()


def test_superpixels_are_always_the_same():
    image = next(toy_samples("val", 1, start=3, size=96)).image
    assert torch.equal(superpixels(image).masks, superpixels(image).masks)


def test_superpixels_refuse_what_they_cannot_use():
    with pytest.raises(ValueError, match="uint8"):
        superpixels(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="three numbers"):
        superpixels(np.zeros((4, 4, 3), np.uint8), regions=(10, 20, 30))


def test_neighbours_merge_by_the_least_loss():
    """Two greys that differ little merge first; equal colours that do not touch never do before them."""
    labels = np.array([[0, 1, 2, 3]])
    grey = np.array([[[10.0], [12.0], [50.0], [11.0]]])
    three, two, one = propose.merged_regions(labels, grey, (3, 2, 1))
    assert three[0, 0] == three[0, 1] and len(np.unique(three)) == 3
    assert two[0, 1] != two[0, 2] == two[0, 3] and set(one[0]) == {0}


# The rules, each against a number worked out by hand


def test_stability_is_the_iou_of_two_thresholds():
    logits = torch.tensor([[[3.0, 2.0, 0.5, -0.5, -3.0]], [[3.0, 3.0, 3.0, -3.0, -3.0]], [[-3.0, -3.0, -3.0, -3.0, -3.0]]])
    score = propose.stability_score(logits)
    assert score[0] == 2 / 4 and score[1] == 1 and score[2].isnan()
    assert propose.stability_score(logits, offset=0.1)[0] == 1


def test_a_mask_at_the_edge_of_a_crop_is_cut_off_but_not_at_the_edge_of_the_picture():
    boxes = torch.tensor([[0.0, 0, 50, 50], [60, 60, 95, 80], [60, 60, 79, 79], [0, 0, 99, 40]])
    assert propose.cut_off(boxes, (0, 0, 100, 100), (100, 200)).tolist() == [False, True, False, True]
    assert not propose.cut_off(boxes, (0, 0, 100, 100), (100, 100)).any()


def test_small_holes_are_filled_and_small_islands_removed():
    mask = rectangle(2, 2, 14, 14).numpy()
    mask[5, 5] = mask[8:12, 8:12] = False
    mask[18, 25] = True
    cleaned = propose.without_small_regions(mask, 10)
    assert cleaned[5, 5] and not cleaned[9, 9] and not cleaned[18, 25]
    assert cleaned.sum() == 12 * 12 - 16
    specks = rectangle(0, 0, 1, 2).numpy() | rectangle(5, 5, 6, 8).numpy()
    assert (propose.without_small_regions(specks, 10) == rectangle(5, 5, 6, 8).numpy()).all(), "the largest stays if all are small"
    assert (propose.without_small_regions(mask, 0) == mask).all()


def test_rock_sand_water_keeps_parts_that_no_single_mask_covers():
    rock, other = rectangle(0, 0, 10, 10), rectangle(0, 10, 10, 20)
    half, across, free = rectangle(5, 5, 15, 10), rectangle(0, 8, 10, 12), rectangle(12, 20, 20, 30)
    nearly = rectangle(8, 0, 16, 4)  # a quarter of it is in the rock
    grain = rectangle(13, 21, 15, 23)
    masks = torch.stack([grain, half, across, free, nearly, rock, other])
    levels = torch.tensor([0, 1, 1, 1, 1, 2, 2])
    assert rock_sand_water(masks, levels).tolist() == [5, 6, 3, 4]
    assert rock_sand_water(masks, levels, covered=0.51).tolist() == [5, 6, 1, 2, 3, 4]
    assert rock_sand_water(masks[:5], levels[:5]).tolist() == [1, 2, 3, 4], "without wholes the parts are the rocks"
    assert rock_sand_water(masks[:0], levels[:0]).tolist() == []


def test_fma_rock_sand_water_is_the_official_one(official_arrays):
    golden = official_arrays("fma_wsss.npz")
    kept = rock_sand_water(torch.from_numpy(golden["fill/masks"]), torch.from_numpy(golden["fill/levels"]))
    assert kept.tolist() == golden["fill/kept"].tolist()


def test_the_presets_are_the_papers_and_a_light_one():
    assert propose.PRESETS["paper"] == ("facebook/sam-vit-huge", PAPER) and propose.PRESETS["light"][1] is LIGHT
    assert (PAPER.points(0), PAPER.points(1)) == (32, 16) and LIGHT.points(0) ** 2 == 256
    with pytest.raises(ValueError, match="at least one point"):
        SamSettings(points_per_side=2, crop_layers=2)


def keep_what_is_cut_off(monkeypatch):
    """The small SAM's masks reach from edge to edge, so that of a crop's none would stay."""
    monkeypatch.setattr(propose, "cut_off", lambda boxes, *_: torch.zeros(len(boxes), dtype=torch.bool))
    library = "transformers.models.sam.image_processing_sam._is_box_near_crop_edge"
    monkeypatch.setattr(library, lambda boxes, *_: torch.zeros(len(boxes), dtype=torch.bool))


@pytest.mark.parametrize(("layers", "overlap"), [(0, 0.7), (0, 1.0), (1, 1.0)])
def test_without_levels_sam_finds_what_the_librarys_pipeline_finds(sam, picture, layers, overlap, monkeypatch):
    """The trusted twin: transformers' own mask generation, for settings it has."""
    if layers:
        keep_what_is_cut_off(monkeypatch)
    from PIL import Image
    from transformers.pipelines import MaskGenerationPipeline

    pipeline = MaskGenerationPipeline(model=sam.model, image_processor=sam.processor)
    twin = pipeline(
        Image.fromarray(picture), points_per_batch=16, points_per_crop=8, crops_n_layers=layers, pred_iou_thresh=EVERYTHING.iou,
        stability_score_thresh=EVERYTHING.stability, crops_nms_thresh=overlap,
    )  # fmt: skip
    settings = dataclasses.replace(EVERYTHING, crop_layers=layers, crop_points_downscale=1, box_overlap=overlap, crop_box_overlap=overlap)
    ours = result(sam_proposals(picture, sam, settings, cache=None))
    assert len(ours) == len(twin["masks"]) > 0

    def fingerprints(masks, scores):
        packed = (np.asarray(mask).tobytes() for mask in masks)
        return sorted((round(float(score), 3), mask) for score, mask in zip(scores, packed, strict=True))

    assert fingerprints(ours.masks, ours.ious) == fingerprints(twin["masks"], twin["scores"])


def test_crops_may_have_fewer_points(sam, picture, monkeypatch):
    keep_what_is_cut_off(monkeypatch)
    steps = list(sam_proposals(picture, sam, dataclasses.replace(EVERYTHING, crop_layers=1), cache=None))
    assert steps[0].total == 8**2 + 4 * 4**2
    alone = result(sam_proposals(picture, sam, EVERYTHING, cache=None))
    assert len(steps[-1].proposals) > len(alone), "no crop gave a mask: the test shows nothing"


def test_levels_have_their_own_threshold(sam, picture):
    plain = result(sam_proposals(picture, sam, dataclasses.replace(EVERYTHING, stability=0), cache=None))
    eased = result(sam_proposals(picture, sam, dataclasses.replace(EVERYTHING, stability=0, iou_offsets=(0, 0, 5.0)), cache=None))
    counts = [[int((found.levels == level).sum()) for level in range(3)] for found in (plain, eased)]
    assert counts[0][:2] == counts[1][:2] and counts[1][2] > counts[0][2]
    assert plain.ious.min() > 0.5 and eased.ious[eased.levels == 2].min() > -4.5


def test_wholes_win_over_better_parts_in_a_crop(sam, picture):
    """The bonus changes who survives, exactly as torchvision's suppression with that bonus says."""
    loose = dataclasses.replace(EVERYTHING, iou=-9, stability=0.5)
    everything = result(sam_proposals(picture, sam, loose, cache=None))
    boxes = masks_to_boxes(everything.masks)
    survivors = []
    for bonus in ((0.0, 0.0, 0.0), (0.0, 0.0, 20.0)):
        kept = result(sam_proposals(picture, sam, dataclasses.replace(loose, box_overlap=0.7, level_bonus=bonus), cache=None))
        expected = nms(boxes, everything.ious + torch.tensor(bonus)[everything.levels], 0.7)
        assert sorted(kept.ious.tolist()) == sorted(everything.ious[expected].tolist())
        survivors.append(int((kept.levels == 2).sum()))
    assert survivors[1] > survivors[0]


def test_what_sam_finds_obeys_its_settings(sam, picture):
    settings = SamSettings(points_per_side=8, iou=0.5, stability=0.6, smallest=30)
    found = result(sam_proposals(picture, sam, settings, cache=None))
    assert len(found) and found.source == "SAM small"
    assert (found.ious + torch.tensor(settings.iou_offsets)[found.levels] > 0.5).all() and (found.stability >= 0.6).all()
    for mask in found.masks.numpy():
        assert (propose.without_small_regions(mask, 30) == mask).all()
    assert rock_sand_water(found.masks, found.levels).tolist() == list(range(len(found)))


def test_steps_tell_the_time_first_and_count_to_the_end(sam, picture):
    steps = list(sam_proposals(picture, sam, EVERYTHING, cache=None))
    assert steps[0].done == 0 and steps[0].seconds_left > 0 and steps[0].proposals is None
    done = [step.done for step in steps]
    assert done == [0, 24, 48, 64, 64] and {step.total for step in steps} == {64}
    assert steps[-1].seconds_left == 0 and steps[-1].proposals is not None


def test_the_same_masks_whatever_the_batch(sam, picture):
    one, other = (
        result(sam_proposals(picture, sam, dataclasses.replace(EVERYTHING, points_per_batch=batch), cache=None)) for batch in (5, 64)
    )
    assert torch.equal(one.levels, other.levels) and (one.masks != other.masks).float().mean() < 1e-4


def test_no_mask_is_good_enough(sam, picture):
    assert len(result(sam_proposals(picture, sam, dataclasses.replace(PAPER, points_per_side=2, iou=99), cache=None))) == 0


@pytest.mark.parametrize(("size", "word"), [((2000, 1001), "smaller"), ((15, 40), "larger")])
def test_a_picture_of_an_unfit_size_is_refused_at_once(sam, size, word):
    with pytest.raises(ProposalError, match=f"make the picture {word}"):
        sam_proposals(np.zeros((*size, 3), np.uint8), sam)


def test_the_smallest_picture_has_crops(sam):
    settings = dataclasses.replace(EVERYTHING, crop_layers=1)
    assert result(sam_proposals(np.zeros((16, 16, 3), np.uint8), sam, settings, cache=None)).masks.shape[1:] == (16, 16)


def test_masks_come_from_disk_the_second_time(sam, picture, tmp_path, monkeypatch):
    first = result(sam_proposals(picture, sam, EVERYTHING, cache=tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    asked = []
    monkeypatch.setattr(propose, "_encoded", lambda *_: asked.append(1) or pytest.fail("computed again"))
    (step,) = sam_proposals(picture, sam, dataclasses.replace(EVERYTHING, points_per_batch=7), cache=tmp_path)
    again = step.proposals
    assert torch.equal(again.masks, first.masks) and torch.equal(again.levels, first.levels) and torch.equal(again.ious, first.ious)
    assert again.source == first.source and not asked


@pytest.mark.parametrize("change", ["pixel", "setting", "weight"])
def test_another_question_is_not_answered_from_disk(sam, picture, tmp_path, change):
    path = propose._cached_path(tmp_path, picture, sam, EVERYTHING)
    settings, image, other = EVERYTHING, picture.copy(), sam
    if change == "pixel":
        image[0, 0, 0] += 1
    if change == "setting":
        settings = dataclasses.replace(EVERYTHING, covered=1.9)
    if change == "weight":
        import copy

        other = Sam(copy.deepcopy(sam.model), sam.processor, sam.name)
        next(other.model.parameters()).data[0] += 1
    assert propose._cached_path(tmp_path, image, other, settings) != path


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", "cut"])
def test_a_damaged_file_is_computed_again(sam, picture, tmp_path, damage):
    first = result(sam_proposals(picture, sam, EVERYTHING, cache=tmp_path))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40] if damage == "cut" else damage)
    assert propose.load_proposals(path) is None
    assert torch.equal(result(sam_proposals(picture, sam, EVERYTHING, cache=tmp_path)).masks, first.masks)
    assert propose.load_proposals(path) is not None


def test_no_masks_and_superpixels_can_be_kept_too(tmp_path):
    for name, found in (
        ("none", Proposals(torch.zeros(0, 4, 5, dtype=torch.bool), torch.zeros(0, dtype=torch.long), "nobody")),
        ("some", superpixels(next(toy_samples("val", 1, size=64)).image)),
    ):
        propose.save_proposals(tmp_path / "new" / f"{name}.npz", found)
        again = propose.load_proposals(tmp_path / "new" / f"{name}.npz")
        assert torch.equal(again.masks, found.masks) and again.source == found.source and again.ious is None


def test_the_folder_stays_below_its_limit(tmp_path):
    for number in range(4):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(b"x" * 100)
        os.utime(path, (number, number))
    os.utime(tmp_path / "0.npz", (9, 9))
    propose._keep_below(tmp_path, most=250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.npz", "3.npz"]


def test_the_limit_is_half_of_what_the_disk_has_room_for(tmp_path, monkeypatch):
    for name, size in (("a.npz", 300), ("others.bin", 900)):
        (tmp_path / name).write_bytes(b"x" * size)
    monkeypatch.setattr(propose.shutil, "disk_usage", lambda folder: SimpleNamespace(free=700))
    assert propose.cache_limit(tmp_path) == (700 + 300) // 2 and propose.cache_limit(tmp_path / "not" / "there") == 350


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProposalError, match="cannot be written"):
        propose.save_proposals(tmp_path / "file" / "x.npz", proposals(rectangle(0, 0, 2, 2)))


@pytest.fixture
def folder(sam, tmp_path):
    sam.model.save_pretrained(tmp_path / "sam")
    sam.processor.save_pretrained(tmp_path / "sam")
    return tmp_path / "sam"


def test_a_sam_from_a_folder_is_the_same_sam(sam, folder):
    loaded = Sam.load(str(folder))
    assert loaded.fingerprint == sam.fingerprint and loaded.name == str(folder)
    assert loaded.processor.size["longest_edge"] == SIDE


def test_half_the_bits_give_nearly_the_same_masks(sam, folder, picture):
    half = Sam.load(str(folder), precision="bfloat16")
    assert half.model.dtype == torch.bfloat16 and half.fingerprint != sam.fingerprint
    points = torch.tensor([[20.0, 30.0], [90.0, 70.0]])
    full, short = (propose._decoded(points, propose._encoded(picture, (0, 0, 256, 192), each)[1], each)[0] for each in (sam, half))
    assert torch.corrcoef(torch.stack([full.flatten(), short.flatten()]))[0, 1] > 0.95
    assert len(result(sam_proposals(picture, half, EVERYTHING, cache=None)))
    with pytest.raises(ProposalError, match="float32, bfloat16"):
        Sam.load(str(folder), precision="int8")


def test_a_sam_from_the_hub_needs_three_files(folder, sam, monkeypatch):
    asked = []
    monkeypatch.setattr(propose, "hub_file", lambda name, file: asked.append((name, file)) or folder / file)
    assert Sam.load("somebody/some-sam").fingerprint == sam.fingerprint
    assert asked == [("somebody/some-sam", name) for name in ("config.json", "preprocessor_config.json", "model.safetensors")]


def test_a_sam_that_cannot_be_fetched_is_told_in_one_sentence(monkeypatch):
    def no_network(*_):
        raise WeightsError("the hub cannot be reached")

    monkeypatch.setattr(propose, "hub_file", no_network)
    with pytest.raises(ProposalError, match="cannot be reached; superpixels need no files"):
        Sam.load("somebody/some-sam")


@pytest.mark.parametrize(
    ("damage", "word"),
    [("other", "is no SAM but clip"), ("config", "config.json"), ("weights", "cannot be loaded"), ("cut", "cannot be loaded")],
)
def test_a_folder_without_a_sam_is_refused(folder, damage, word):
    if damage == "other":
        (folder / "config.json").write_text('{"model_type": "clip"}')
    if damage == "config":
        (folder / "config.json").unlink()
    if damage == "weights":
        (folder / "model.safetensors").unlink()
    if damage == "cut":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ProposalError, match=word) as told:
        Sam.load(str(folder))
    assert "\n" not in str(told.value)


def test_lacking_weights_are_told(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["vision_encoder.layers.0.mlp.lin1.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ProposalError, match="lacks 1 of SAM's weights"):
        Sam.load(str(folder))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "sam.pth").write_bytes(b"x")
    with pytest.raises(ProposalError, match="give a folder"):
        Sam.load(str(tmp_path / "sam.pth"))
