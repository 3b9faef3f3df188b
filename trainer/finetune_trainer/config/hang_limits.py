"""How long a rank may be silent before it counts as hanging. The document has these limits in `runPolicy.hang`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune_trainer.config.base import Section

Seconds = Annotated[int, Field(ge=1, le=30 * 24 * 3600)]


class HangLimits(Section):
    """Seconds without a sign of life after which a rank hangs and is restarted.

    A rank that waits for others hangs only if no rank of the job gives signs of life.
    """

    start_seconds: Seconds = Field(
        1800, description="While data is prepared, model and checkpoint are loaded, and the first step compiles its kernels."
    )
    step_seconds: Seconds = Field(
        600,
        description="While training, where each micro-batch is a sign of life. The limit grows with the run's own steps: it is "
        "at least ten times the silence that most of them stay below.",
    )
    evaluation_seconds: Seconds = Field(1800, description="While the model is evaluated; each micro-batch is a sign of life.")
    save_seconds: Seconds = Field(
        1800, description="While the last checkpoint or the model is stored; each transferred part is a sign of life."
    )
