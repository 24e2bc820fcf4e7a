"""Samples and data sets: the drawn world, VOC, COCO, a folder of your own."""

from kit.data.dataset import DataError, DataSet, Entry
from kit.data.sample import Sample
from kit.data.toy import toy_data, toy_samples

__all__ = ["DataError", "DataSet", "Entry", "Sample", "toy_data", "toy_samples"]
