"""When an elastic job gets smaller, and when it grows again."""

from __future__ import annotations

from pydantic import Field

from finetune_trainer.config.base import Section


class Elastic(Section):
    """When a job with workers.minNodes goes on with fewer nodes, and when it tries to use more of them again."""

    shrink_after_seconds: int = Field(
        60,
        ge=1,
        le=86400,
        description="Time for which a pod is missing (it cannot be created, is not scheduled, does not start, or its node is "
        "lost) until the run goes on with fewer nodes.",
    )
    grow_after_seconds: int = Field(
        120,
        ge=0,
        le=86400,
        description="Time after a change of the number of nodes until pods for more nodes are created. It doubles with each "
        "further change within an hour, up to an hour, and differs between jobs by up to half.",
    )
