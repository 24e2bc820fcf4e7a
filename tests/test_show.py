"""Pictures of things whose colours are known."""

import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from kit import show
from kit.data import toy_samples
from kit.images import PALETTE

GREY = np.full((12, 16, 3), 100, np.uint8)
RAMP = np.linspace(0, 1, 12 * 16, dtype=np.float32).reshape(12, 16)


@pytest.mark.parametrize("name", show.COLOUR_MAPS)
def test_heat_without_and_with_full_opacity(name):
    assert np.array_equal(show.heat_overlay(GREY, RAMP, opacity=0, colour_map=name), GREY)
    opaque = show.heat_overlay(GREY, RAMP, opacity=1, colour_map=name)
    expected = np.round(matplotlib.colormaps[name]((RAMP * 255).round().astype(int))[..., :3] * 255)
    assert np.abs(opaque - expected).max() <= 1


def test_half_opacity_is_the_mean():
    opaque = show.heat_overlay(GREY, RAMP, opacity=1).astype(float)
    assert np.abs(show.heat_overlay(GREY, RAMP) - (opaque + GREY) / 2).max() <= 1
    white = np.full_like(GREY, 255)
    assert np.all(show.mask_overlay(white, np.full((12, 16), 255), opacity=1) == PALETTE[255])
    assert np.all(show.heat_overlay(white, RAMP, opacity=0.5)[..., 0] >= 127)  # no overflow at the bright end


def test_tensors_are_shown_like_arrays():
    cam = torch.from_numpy(RAMP)
    expected = show.heat_overlay(GREY, RAMP)
    assert np.array_equal(show.heat_overlay(GREY, cam.clone().requires_grad_()), expected)
    assert np.array_equal(show.heat_overlay(GREY, cam.double()), expected)
    assert np.abs(show.heat_overlay(GREY, cam.bfloat16()).astype(int) - expected).max() < 12
    labels = torch.zeros(12, 16, dtype=torch.long)
    assert np.array_equal(show.mask_overlay(GREY, labels), GREY)


def test_a_mask_paints_its_classes_and_spares_the_background():
    labels = np.zeros((12, 16), np.uint8)
    labels[:6] = 15
    painted = show.mask_overlay(GREY, labels, opacity=1)
    assert np.all(painted[:6] == PALETTE[15]) and np.all(painted[6:] == 100)
    half = show.mask_overlay(GREY, labels, opacity=0.5)
    assert np.abs(half[:6] - (PALETTE[15] / 2 + 50)).max() <= 1


def test_hatching_marks_only_what_it_is_told_to():
    where = np.zeros((12, 16), bool)
    where[:, 8:] = True
    for level in (0, 100, 255):
        before = np.full_like(GREY, level)
        after = show.hatch(before, where)
        assert np.array_equal(after[:, :8], before[:, :8])
        assert 0.2 < (after[:, 8:] != level).any(axis=2).mean() < 0.8
        assert np.all(before == level)
    assert np.array_equal(show.hatch(GREY, torch.zeros(12, 16, dtype=torch.bool)), GREY)


def test_labels_to_rgb_is_vocs_palette():
    labels = np.arange(256).reshape(16, 16)
    assert np.array_equal(show.labels_to_rgb(labels), PALETTE.reshape(16, 16, 3))
    assert show.labels_to_rgb(labels.astype(np.uint8)).dtype == np.uint8


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda: show.heat_overlay(GREY, RAMP[:5]), "resize"),
        (lambda: show.heat_overlay(GREY, RAMP * 2), "normalise"),
        (lambda: show.heat_overlay(GREY, RAMP - 1), "normalise"),
        (lambda: show.heat_overlay(GREY, RAMP * np.nan), "normalise"),
        (lambda: show.heat_overlay(GREY, RAMP[None]), "one class"),
        (lambda: show.heat_overlay(GREY / 255, RAMP), "picture uint8"),
        (lambda: show.heat_overlay(GREY, RAMP, opacity=1.5), "opacity"),
        (lambda: show.heat_overlay(GREY, RAMP, opacity=float("nan")), "opacity"),
        (lambda: show.heat_overlay(GREY, RAMP, colour_map="rainbow"), "inferno, viridis, magma, turbo, jet"),
        (lambda: show.mask_overlay(GREY, RAMP), "whole numbers"),
        (lambda: show.mask_overlay(GREY, np.zeros((3, 3), np.uint8)), "resize"),
        (lambda: show.labels_to_rgb(np.array([[256]])), "0..255"),
        (lambda: show.labels_to_rgb(np.array([[-1]])), "0..255"),
        (lambda: show.hatch(GREY, RAMP), "bool"),
        (lambda: show.hatch(GREY, np.ones((2, 2), bool)), "resize"),
        (lambda: show.strip({}), "at least one"),
        (lambda: show.strip({"a": np.zeros(3)}), "one picture or one map"),
        (lambda: show.curve([], {"a": ([], [])}), "at least one place"),
        (lambda: show.curve([1, 2], {"a": ([1, 2], [1])}), "expected 2 values and spreads for 'a', got 2 and 1"),
        (lambda: show.grid_map(np.zeros((2, 3)), [1, 2], [1, 2]), r"expected values \(2, 2\)"),
    ],
)
def test_what_cannot_be_drawn_is_told(draw, told):
    with pytest.raises(ValueError, match=told):
        draw()


def test_slack_for_what_resizing_overshoots():
    assert np.array_equal(show.heat_overlay(GREY, RAMP * 1.00001), show.heat_overlay(GREY, RAMP))


def test_a_strip_shows_every_picture_under_its_title():
    titles = {"image": GREY, "CAM": torch.rand(12, 16), "mask": np.full((6, 8), 15), "unsure": RAMP > 0.5}
    figure = show.strip(titles)
    assert [axes.get_title() for axes in figure.axes] == list(titles)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].reshape(-1, 3)
    assert (pixels == PALETTE[15]).all(axis=1).sum() > 1000
    assert (pixels == 100).all(axis=1).sum() > 1000


def test_a_long_strip_goes_on_in_the_next_row():
    figure = show.strip({str(number): GREY for number in range(7)}, columns=4)
    assert len(figure.axes) == 7
    assert figure.axes[4].get_subplotspec().rowspan.start == 1


def test_a_curve_keeps_the_distances_of_numbers_and_spaces_words_evenly():
    lines = {"one": ([1.0, 2.0, 4.0], [0.5, float("nan"), 0.25])}
    axes = show.curve([0.1, 0.2, 0.8], lines, x_title="threshold", y_title="score").axes[0]
    points = axes.containers[0].lines[0]
    assert np.allclose(points.get_xydata(), [[0.1, 1], [0.2, 2], [0.8, 4]])
    bars = axes.containers[0].lines[2][0].get_segments()
    assert [float(bar[1, 1] - bar[0, 1]) for bar in bars] == [1.0, 0.0, 0.5]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "0.2", "0.8"]
    words = show.curve(["plain", "softmax", True], lines).axes[0]
    assert np.allclose(words.containers[0].lines[0].get_xdata(), [0, 1, 2])
    words.figure.canvas.draw()


def test_a_grid_map_writes_every_number_and_leaves_gaps_grey():
    axes = show.grid_map([[10, 20.04], [float("nan"), 30]], ["a", "b"], [1, 2]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["10.0", "20.0", "–", "30.0"]
    colours = axes.images[0].get_array()
    assert np.all(colours[1, 0] == 230) and colours[1, 1].sum() > colours[0, 0].sum()
    show.grid_map([[5.0]], ["a"], ["b"]).canvas.draw()


def test_no_window_system_is_woken():
    program = "import sys; import kit.show; sys.exit('matplotlib.pyplot' in sys.modules or 'tkinter' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_labels_take_their_own_classes_colours():
    labels = torch.tensor([[0, 1, 2, 255]])
    assert show.in_voc_colours(labels, ("sofa", "cat")).tolist() == [[0, 18, 8, 255]]
    assert show.in_voc_colours(labels, ("zeppelin", "cat")).tolist() == [[0, 21, 8, 255]]
    with pytest.raises(ValueError, match="labels 0..1 of sofa"):
        show.in_voc_colours(labels, ("sofa",))


def test_a_frame_surrounds_its_patch_and_spares_the_rest():
    framed = show.framed_patch(GREY, (3, 4), 1, 2)
    assert np.all(framed[4:8, 8:12] == 100)
    assert np.all(framed[3, 8:12] == 255) and np.all(framed[2, 8:12] == 0)
    assert np.all(framed[:, :6] == 100) and np.all(GREY == 100)
    assert np.all(show.framed_patch(GREY, (3, 4), 0, 0)[:4, :4] == 100)  # at the border as well
    with pytest.raises(ValueError, match="columns 0..3"):
        show.framed_patch(GREY, (3, 4), 0, 4)


def test_a_scatter_has_all_points_and_the_names():
    figure = show.scatter([1, 2, 3], [3, 1, 2], marked={"the second": 1}, x_title="sharpness", y_title="mIoU")
    axes = figure.axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[1, 3], [2, 1], [3, 2]]
    assert [text.get_text() for text in axes.texts] == ["the second"] and axes.get_xlabel() == "sharpness"
    with pytest.raises(ValueError, match="3 and 2"):
        show.scatter([1, 2, 3], [1, 2])


def test_a_png_is_a_png():
    from io import BytesIO

    from PIL import Image

    figure = show.strip({"grey": GREY})
    small, large = (Image.open(BytesIO(show.png(figure, dpi=dpi))) for dpi in (50, 100))
    assert small.format == "PNG" and abs(large.width - 2 * small.width) <= 2
    few = Image.open(BytesIO(show.png(figure, colours=8)))
    assert few.mode == "P" and len(few.getcolors()) <= 8 and few.size == Image.open(BytesIO(show.png(figure))).size
    with pytest.raises(ValueError, match="2 to 256 colours"):
        show.png(figure, colours=1)


def test_panels_are_as_wide_as_asked_and_named():
    truth = np.zeros((8, 12), int)
    truth[0:3, 3:9] = 8  # at the top
    image = np.full((8, 12, 3), 90, np.uint8)
    pictures = {
        "picture": show.panel(image),
        "heat": show.heat_panel(image, np.linspace(0, 1, 96).reshape(8, 12), truth),
        "signed": show.signed_panel(np.array([[1e-3, -2e-3]]), truth),
        "mask": show.mask_panel(image, truth, ("cat", "unicorn"), truth > 0),
    }
    figure = show.panels(pictures, columns=3, side=320)
    axes = [each for each in figure.axes if each.get_title()]
    assert [each.get_title() for each in axes] == list(pictures)
    for each in axes:
        box = each.get_position()
        assert box.width * figure.get_figwidth() * 100 == pytest.approx(320) == box.height * figure.get_figheight() * 100
    assert [text.get_text() for text in axes[3].texts] == ["cat", "unicorn"]
    assert show.labels_to_rgb(np.array([[8]]))[0, 0] / 255 == pytest.approx(axes[3].texts[0].get_bbox_patch().get_facecolor()[:3])
    drawn = axes[2].images[0]
    assert drawn.get_array().tolist() == [[1, -2]] and drawn.get_clim() == (-2, 2)  # times 1000, zero in the middle
    outline = axes[1].collections[0].get_paths()[0].vertices
    assert outline[:, 0].min() > 2 and outline[:, 0].max() < 10 and outline[:, 1].max() < 4  # counted from the top
    assert axes[1].yaxis_inverted() and axes[1].get_ylim() == (8, 0)
    plain = show.panels({"mask": show.mask_panel(image, truth)}).axes[0].images[0].get_array()
    assert np.array_equal(plain, show.mask_overlay(image, truth)) and not np.array_equal(plain, axes[3].images[0].get_array())
    assert show.png(figure, colours=256)[:4] == b"\x89PNG"
    for wrong in ({}, pictures):
        with pytest.raises(ValueError, match="at least one picture"):
            show.panels(wrong, columns=0 if wrong else 3)


def test_a_flow_shows_boxes_arrows_and_shapes():
    boxes = {"a": (0, 0, "picture"), "b": (40, 0, "a loss")}
    figure = show.flow(boxes, [("a", "b", 20, 0, "maps"), ("b", "a", 20, -5, "gradient", -0.2)], {"maps": np.zeros((2, 3))})
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert texts.keys() >= {"picture", "a loss", "maps\n2×3", "gradient"}
    red = {name for name, text in texts.items() if text.get_color() == "#b00000"}
    assert red == {"gradient"} and texts["a loss"].get_bbox_patch().get_facecolor() != texts["picture"].get_bbox_patch().get_facecolor()


def test_a_palette_keeps_strong_colours():
    """A bar is small, and beside pictures of many pale colours it must not get theirs."""
    image = next(toy_samples("val", 1, start=22)).image
    down, across = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    heat = (1 - np.hypot(down, across) / 200).clip(0, 1).astype(np.float32)
    pictures = {"picture": show.panel(image), "heat": show.heat_panel(image, heat), "mask": show.mask_panel(image, 8 * (heat > 0.5))}
    with Image.open(io.BytesIO(show.png(show.panels(pictures), dpi=100, colours=256))) as picture:
        seen = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    for strong in show.colour_bar("turbo"):
        assert np.abs(seen - strong).max(1).min() <= 40, strong
