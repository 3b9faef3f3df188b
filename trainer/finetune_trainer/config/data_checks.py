"""What is looked for in the data before it is learnt from, and what is done about what is found."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Section

Policy = Literal["Ignore", "Warn", "Drop", "Fail"]


class DataChecksConfig(Section):
    """What becomes of rows that would spoil the result: Ignore does not look for them, Warn says so in the report and the
    job's status, Drop leaves them out, Fail ends the run before it trains."""

    duplicates: Policy = Field("Warn", description="Training rows that repeat an earlier one; Drop keeps the first.")
    near_duplicates: Policy = Field(
        "Warn",
        description="Training rows that share four fifths of their phrases of five words with an earlier one (MinHash, Broder "
        "1997); Drop keeps the first.",
    )
    leakage: Policy = Field(
        "Warn",
        description="Training rows whose texts are, word for word or nearly, in the evaluation data; Drop removes them from "
        "training.",
    )
    compared_rows: int = Field(
        50_000,
        ge=0,
        le=100_000_000,
        description="How many rows of each side, the first ones, are compared for what is nearly the same: each needs about "
        "6 KB of memory and a ten-thousandth of a second. 0 compares none.",
    )
    personal_data: Literal["Ignore", "Warn", "Scrub", "Drop", "Fail"] = Field(
        "Warn",
        description="Rows with e-mail addresses, phone numbers, credit card numbers, IBANs, public IPv4 addresses or US social "
        "security numbers; Scrub puts [EMAIL] and the like in their place, in evaluation data too.",
    )
    personal_data_detector: Literal["BuiltIn", "Presidio"] = Field(
        "BuiltIn",
        description="What finds personal data: the patterns above, or presidio-analyzer, which the trainer's image then has to "
        "bring together with a spaCy model. It finds names and places too, and its entities are the placeholders: [PERSON], "
        "[EMAIL_ADDRESS]. The environment variable ANALYZER_CONF_FILE may name a configuration file for it (models, languages, "
        "recognizers, default_score_threshold); without one it reports what it is least sure of too, and wants en_core_web_lg.",
    )
    truncation: Literal["Ignore", "Warn", "Fail"] = Field(
        "Warn", description="Rows that lost their end, or were dropped, for being longer than maxLength."
    )
    unlearnable: Literal["Ignore", "Warn", "Fail"] = Field(
        "Warn", description="Rows without anything to learn, which are left out."
    )

    altering: ClassVar[tuple[str, ...]] = ("Drop", "Scrub")

    @property
    def identity(self) -> dict[str, Any]:
        """The part that decides which rows are learnt from and what stands in them; JSON."""
        found = {name: policy for name, policy in self.document().items() if policy in self.altering}
        compares = {"nearDuplicates", "leakage"} & found.keys()
        detects = {"personalDataDetector": self.personal_data_detector} if "personalData" in found else {}
        return found | detects | ({"comparedRows": self.compared_rows} if compares else {})
