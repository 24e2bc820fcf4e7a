"""How well label maps agree with the truth, counted over a whole data set."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

NOT_JUDGED = 255  # VOC's label for pixels that count neither for nor against anybody


class Confusion:
    """Who was taken for whom, pixel by pixel, over all pictures added: the one table that every score is read from.

    `names` are the classes in the order of their labels, background first. Pixels whose truth is 255 are left out.

    >>> confusion = Confusion(("background", "cat"))
    >>> confusion.add(torch.tensor([[0, 1, 1, 255]]), torch.tensor([[0, 1, 0, 1]]))
    >>> confusion.iou()
    {'background': 0.5, 'cat': 0.5}
    """

    def __init__(self, names: tuple[str, ...]):
        names = tuple(names)
        if not 2 <= len(names) <= NOT_JUDGED or len(set(names)) < len(names):
            got = f"{len(names)}: {', '.join(map(str, names))}"
            raise ValueError(f"expected 2 to {NOT_JUDGED} different names, background first, got {got}")
        self.names = names
        self._counts = torch.zeros(len(names), len(names), dtype=torch.int64)

    @property
    def matrix(self) -> Tensor:
        """The table itself: int64 (C, C), truth in rows, labels in columns, in pixels."""
        return self._counts.clone()

    def add(self, truth: Any, labels: Any) -> None:
        """Count the pixels of one picture or of a batch.

        truth, labels: arrays or tensors of one shape, whole numbers 0..C-1; the truth may also hold 255.
        Raises ValueError if the shapes differ or a number is no label: an unsure pixel (255) in `labels` needs its best label.
        """
        truth, labels = _whole_numbers(truth, "truth"), _whole_numbers(labels, "labels")
        if truth.shape != labels.shape:
            raise ValueError(f"expected labels of the truth's shape {tuple(truth.shape)}, got {tuple(labels.shape)}; resize them first")
        if not truth.numel():
            raise ValueError(f"expected at least one pixel, got a truth of shape {tuple(truth.shape)}; add a picture that has some")
        last = len(self.names) - 1
        _check_range(labels, last, "labels", "mark unsure pixels after scoring, not before")
        _check_range(torch.where(truth == NOT_JUDGED, 0, truth), last, "truth", f"only {NOT_JUDGED} (not judged) may lie outside")
        self._counts = self._counts + multiclass_confusion_matrix(
            labels.flatten(), truth.flatten(), len(self.names), ignore_index=NOT_JUDGED, validate_args=False
        )

    def iou(self) -> dict[str, float]:
        """Intersection over union of each class, 0..1.

        Like VOC's and CLIP-ES's score it is nan for a class that no truth shows, even where labels claim it: such
        pixels already count against the class they were taken from.
        """
        matrix = self._counts.double()
        hits, shown, claimed = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        values = torch.where(shown > 0, hits / (shown + claimed - hits), math.nan)
        return dict(zip(self.names, values.tolist(), strict=True))

    def miou(self) -> float:
        """The mean of `iou` over the classes that the truth shows, 0..1; nan if it shows none yet."""
        return torch.tensor(list(self.iou().values()), dtype=torch.float64).nanmean().item()

    def __add__(self, other: "Confusion") -> "Confusion":
        """The counts of both together, as if all pictures had been added to one; both stay as they are."""
        if not isinstance(other, Confusion):
            return NotImplemented
        if other.names != self.names:
            raise ValueError(f"expected names {', '.join(self.names)}, got {', '.join(other.names)}; score both with the same names")
        total = Confusion(self.names)
        total._counts = self._counts + other._counts
        return total


def _whole_numbers(values: Any, name: str) -> Tensor:
    tensor = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"expected {name} in whole numbers, got {tensor.dtype}; make a label map first")
    return tensor.long()


def _check_range(values: Tensor, last: int, name: str, hint: str) -> None:
    low, high = (bound.item() for bound in values.aminmax())
    if low < 0 or high > last:
        raise ValueError(f"expected {name} 0..{last}, got {low}..{high}; {hint}")
