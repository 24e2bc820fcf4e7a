"""Real photographs of VOC and COCO in their own layouts, where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from kit.data import open_data
from kit.data.coco import _instances, painted
from kit.images import load_image

PHOTOS = Path(os.environ.get("KIT_REAL_PHOTOS") or Path(__file__).parents[2] / "shared" / "real_photos")
pytestmark = [
    pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no real photographs at {PHOTOS} (KIT_REAL_PHOTOS names their folder)"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.mark.parametrize(("name", "split", "count"), [("voc", "train", 24), ("voc", "val", 32), ("coco", "val", 12)])
def test_all_are_read_and_both_kinds_of_labels_agree(name, split, count):
    root = PHOTOS / {"voc": "VOC2012", "coco": "COCO2014"}[name]
    data, by_mask = (open_data(name, root=root, split=split, labels=labels, skip_bad=True) for labels in (None, "masks"))
    assert len(data) == count and data.refused == () and data.has_truth
    for entry, other in zip(data.entries, by_mask.entries, strict=True):
        sample = entry.sample(truth=True)
        assert entry.size() == sample.image.shape[:2] == sample.truth.shape
        assert sample.names and set(sample.names) == set(other.names()), entry.id


def test_painted_instances_are_the_shipped_masks_wherever_these_are_judged():
    coco, label_of = _instances(PHOTOS / "COCO2014" / "annotations" / "instances_val2014.json")
    images = {Path(image["file_name"]).stem: image for image in coco.dataset["images"]}
    for entry in open_data("coco", root=PHOTOS / "COCO2014", split="val").entries:
        truth = entry.truth()
        judged = truth != 255
        assert np.array_equal(painted(coco, images[entry.id], label_of)[judged], truth[judged]), entry.id


def test_photographs_without_labels_are_pictures():
    for path in (PHOTOS / "people_and_pets").iterdir():
        assert load_image(path).ndim == 3
