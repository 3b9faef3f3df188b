"""Detectors of personal data."""

from __future__ import annotations

import os

from finetune_trainer.config import DataChecksConfig
from finetune_trainer.data.checks.detectors import presidio
from finetune_trainer.data.checks.detectors.base import Detector
from finetune_trainer.data.checks.detectors.patterns import BUILT_IN


def detector_for(checks: DataChecksConfig) -> Detector:
    """The document's detector; raises ConfigurationError if it or one of its models is not installed."""
    if checks.personal_data == "Ignore" or checks.personal_data_detector == "BuiltIn":
        return BUILT_IN
    return presidio.detector(os.environ.get(presidio.CONFIGURATION))
