"""How the operator itself is set up: command-line flags, or environment variables of the same names."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_operator import __version__

ENVIRONMENT_PREFIX = "FINETUNE_OPERATOR_"


class Settings(BaseModel):
    """Every setting once; `--trainer-image` is also FINETUNE_OPERATOR_TRAINER_IMAGE. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trainer_image: str = Field(
        f"finetune-trainer:{__version__}", min_length=1, description="image of trainer pods where workers.image is absent"
    )
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        "", description="of trainer pods; Kubernetes' default when empty"
    )
    node_lost_seconds: int = Field(
        60, ge=0, description="a pod is given up after its node was unreachable for this long (Kubernetes' default is 300)"
    )
    namespaces: str = Field("", description="namespaces to serve, separated by commas; all when empty")
    workers: int = Field(64, ge=1, le=256, description="jobs that are looked at simultaneously")
    api_connections: int = Field(64, ge=1, le=512, description="simultaneous requests to the API server")
    api_timeout: float = Field(30, gt=0, description="limit of one request to the API server")
    progress_interval: float = Field(3, gt=0, description="between two looks at a run's progress")
    progress_write_interval: float = Field(
        5, gt=0, description="at least between two writes of one job's status that carry nothing but progress"
    )
    progress_writes_per_second: float = Field(
        10, gt=0, description="of all jobs together; with many jobs each one's progress is written less often"
    )
    resync_interval: float = Field(300, gt=0, description="between two comparisons of the caches with the cluster")
    http_address: str = Field("0.0.0.0", description="address of /metrics and /healthz")
    http_port: int = Field(8080, ge=0, le=65535, description="port of /metrics and /healthz")
    stalled_after: float = Field(120, gt=0, description="/healthz fails when a job waited this long to be looked at")
    log_format: Literal["plain", "json"] = Field("plain", description="format of the log")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severity that is logged")

    @classmethod
    def read(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> Self:
        """From flags, else environment variables, else defaults; exits with a usage message on a mistake."""
        parser = argparse.ArgumentParser(prog="python -m finetune_operator", description="The operator of FineTuneJobs.")
        for name, info in cls.model_fields.items():
            default = f"default: {info.default!r}".replace("%", "%%")
            parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=f"{info.description} ({default})")
        flags = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
        variables = {
            name: environment[variable]
            for name in cls.model_fields
            if (variable := ENVIRONMENT_PREFIX + name.upper()) in environment
        }
        try:
            return cls.model_validate(variables | flags)
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            parser.error(f"--{str(wrong['loc'][0]).replace('_', '-')}: {wrong['msg']}")

    @property
    def served_namespaces(self) -> tuple[str, ...]:
        """Namespaces to serve; none means all."""
        return tuple(name.strip() for name in self.namespaces.split(",") if name.strip())
