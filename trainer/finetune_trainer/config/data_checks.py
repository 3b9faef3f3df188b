"""Checks of the data before training, and their policies."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Section

Policy = Literal["Ignore", "Warn", "Drop", "Fail"]


class DataChecksConfig(Section):
    """Checks for rows that harm the result. Ignore skips a check, Warn reports its findings in the data report and the job's
    status, Drop removes the rows, Fail ends the run before training."""

    duplicates: Policy = Field("Warn", description="Training rows that repeat an earlier one; Drop keeps the first.")
    near_duplicates: Policy = Field(
        "Warn",
        description="Training rows that share four fifths of their five-word phrases with an earlier one (MinHash, Broder "
        "1997); Drop keeps the first.",
    )
    leakage: Policy = Field(
        "Warn",
        description="Training rows whose texts are in the evaluation data, word for word or nearly; Drop removes them from "
        "training.",
    )
    compared_rows: int = Field(
        50_000,
        ge=0,
        le=100_000_000,
        description="Rows of each split, from the first on, that are compared for similarity: each takes about 6 KB of memory "
        "and 0.1 ms. 0 compares none.",
    )
    personal_data: Literal["Ignore", "Warn", "Scrub", "Drop", "Fail"] = Field(
        "Warn",
        description="Rows with e-mail addresses, phone numbers, credit card numbers, IBANs, public IPv4 addresses or US social "
        "security numbers; Scrub replaces them with placeholders such as [EMAIL], in evaluation data too.",
    )
    personal_data_detector: Literal["BuiltIn", "Presidio"] = Field(
        "BuiltIn",
        description="The detector of personal data: built-in patterns for the kinds above, or presidio-analyzer, which the "
        "trainer's image must then contain together with a spaCy model. Presidio also finds names and places, and its entities "
        "become placeholders such as [PERSON] and [EMAIL_ADDRESS]. The environment variable ANALYZER_CONF_FILE may name its "
        "configuration file (models, languages, recognizers, default_score_threshold); without one it reports matches of any "
        "score and needs en_core_web_lg.",
    )
    truncation: Literal["Ignore", "Warn", "Fail"] = Field(
        "Warn", description="Rows that were truncated or dropped because they are longer than maxLength."
    )
    unlearnable: Literal["Ignore", "Warn", "Fail"] = Field(
        "Warn",
        description="Rows without a label or without any token to learn, conversations without an answer, and pairs of equal "
        "answers; they are left out.",
    )

    altering: ClassVar[tuple[str, ...]] = ("Drop", "Scrub")
    """The policies that change the training rows."""

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that change the training rows; JSON."""
        identity: dict[str, Any] = {}
        for name, value in self.document().items():
            if value in self.altering:
                identity[name] = value
        compares_rows = "nearDuplicates" in identity or "leakage" in identity
        if "personalData" in identity:
            identity["personalDataDetector"] = self.personal_data_detector
        if compares_rows:
            identity["comparedRows"] = self.compared_rows
        return identity
