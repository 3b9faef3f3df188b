"""Settings of the operator process, from command-line flags or environment variables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from finetune_operator import __version__

ENVIRONMENT_PREFIX = "FINETUNE_OPERATOR_"


def _parse_peers(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value else None
    except ValueError as error:
        raise ValueError(
            f"invalid JSON: {error}: pass a list of peers such as "
            '[{"podSelector": {"matchLabels": {"app": "prometheus"}}}]'
        ) from None


# An empty list in a NetworkPolicy would mean that everybody may connect.
NetworkPolicyPeers = Annotated[Annotated[list[dict[str, Any]], Field(min_length=1)] | None, BeforeValidator(_parse_peers)]


class Settings(BaseModel):
    """Settings of the operator. The flag `--trainer-image` has the environment variable FINETUNE_OPERATOR_TRAINER_IMAGE.

    All times are in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trainer_image: str = Field(
        f"finetune-trainer:{__version__}", min_length=1, description="image of trainer pods for jobs without workers.image"
    )
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        "", description="image pull policy of trainer pods; Kubernetes' default when empty"
    )
    profiles: str = Field("", description="YAML file with the administrator's profiles; only the built-in limits when empty")
    node_lost_seconds: int = Field(
        30,
        ge=0,
        description="time after which a pod on a lost node is replaced, for jobs without runPolicy.nodeLostSeconds; it starts "
        "when Kubernetes reports the node as not ready, by default 50 seconds after its last sign of life",
    )
    lease: str = Field(
        "",
        pattern=r"^([a-z0-9.-]+/[a-z0-9.-]+)?$",
        description="the Lease by which several replicas elect their leader, as NAMESPACE/NAME; no election when empty",
    )
    namespaces: str = Field("", description="namespaces to watch, separated by commas; all namespaces when empty")
    network_policy_peers: NetworkPolicyPeers = Field(
        None,
        description="peers that may read /progress and /metrics of trainer pods, the operator among them: a JSON list as in a "
        "NetworkPolicy; jobs get no NetworkPolicy when empty",
    )
    workers: int = Field(64, ge=1, le=256, description="number of jobs that are reconciled concurrently")
    api_connections: int = Field(64, ge=1, le=512, description="maximum number of concurrent requests to the API server")
    api_timeout: float = Field(30, gt=0, description="timeout of one request to the API server")
    progress_interval: float = Field(3, gt=0, description="interval at which the progress of running jobs is polled")
    progress_write_interval: float = Field(
        5, gt=0, description="minimum interval between two status writes of one job that contain only progress"
    )
    progress_writes_per_second: float = Field(
        10,
        gt=0,
        description="maximum rate of progress writes for all jobs; with many active jobs each job is updated less often",
    )
    resync_interval: float = Field(300, gt=0, description="interval at which the caches are compared with the cluster")
    http_address: str = Field("0.0.0.0", description="listen address of /metrics, /healthz and /readyz")
    http_port: int = Field(8080, ge=0, le=65535, description="port of /metrics, /healthz and /readyz")
    stalled_after: float = Field(120, gt=0, description="/readyz fails when a job has waited this long for a reconcile")
    log_format: Literal["plain", "json"] = Field("plain", description="format of log lines")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="lowest level that is logged")

    @classmethod
    def from_arguments(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Parse the settings: flags override environment variables, which override defaults.

        Exits with a usage message that names the flag if a value is invalid.
        """
        parser = argparse.ArgumentParser(prog="python -m finetune_operator", description="The operator of FineTuneJobs.")
        for name, field in cls.model_fields.items():
            default = f"default: {field.default!r}".replace("%", "%%")
            parser.add_argument(_flag(name), metavar="VALUE", help=f"{field.description} ({default})")
        flags = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
        variables: dict[str, str] = {}
        for name in cls.model_fields:
            value = environment.get(ENVIRONMENT_PREFIX + name.upper())
            if value is not None:
                variables[name] = value
        try:
            return cls.model_validate(variables | flags)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            parser.error(f"{_flag(str(first['loc'][0]))}: {first['msg']}")

    @property
    def watched_namespaces(self) -> tuple[str, ...]:
        """Namespaces to watch; an empty tuple means all namespaces."""
        names = (name.strip() for name in self.namespaces.split(","))
        return tuple(name for name in names if name)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
