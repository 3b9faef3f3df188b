"""Which detector of personal data a document asks for."""

from __future__ import annotations

import os

from finetune_trainer.config import DataChecksConfig
from finetune_trainer.data.checks import presidio
from finetune_trainer.data.checks.personal_data import BUILT_IN, Detector


def detector_for(checks: DataChecksConfig) -> Detector:
    """Raises ConfigurationError for one that is not installed, or lacks what it works with."""
    if checks.personal_data == "Ignore" or checks.personal_data_detector == "BuiltIn":
        return BUILT_IN
    return presidio.detector(os.environ.get(presidio.CONFIGURATION))
