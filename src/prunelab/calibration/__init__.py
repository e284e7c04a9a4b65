"""Calibration: one pass over text that collects the statistics of every method."""

from prunelab.calibration.collect import calibrate
from prunelab.calibration.corpus import CalibrationSet, draw_calibration_set
from prunelab.calibration.image_text import draw_pairs, is_pairs
from prunelab.calibration.statistics import ActivationStatistics, Moments

__all__ = [
    "ActivationStatistics",
    "CalibrationSet",
    "Moments",
    "calibrate",
    "draw_calibration_set",
    "draw_pairs",
    "is_pairs",
]
