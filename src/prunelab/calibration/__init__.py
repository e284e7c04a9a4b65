"""Calibration: one pass over text that collects the statistics of every method."""

from typing import TYPE_CHECKING

from prunelab.io.lazy import lazy_attributes

if TYPE_CHECKING:
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

__getattr__ = lazy_attributes(
    __name__,
    {
        "calibrate": "prunelab.calibration.collect",
        "CalibrationSet": "prunelab.calibration.corpus",
        "draw_calibration_set": "prunelab.calibration.corpus",
        "draw_pairs": "prunelab.calibration.image_text",
        "is_pairs": "prunelab.calibration.image_text",
        "ActivationStatistics": "prunelab.calibration.statistics",
        "Moments": "prunelab.calibration.statistics",
    },
)
