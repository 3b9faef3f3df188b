"""What the limits of a profile refuse in a document: one sentence for each value, with its field, the profile and the fix.

The models of `api.pod_template` list the fields that can be expressed at all. Parts of volumes are free-form; of them only keys
that are known here are accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finetune_operator.api import FineTuneJob
from finetune_operator.api.pod_template import EnvVar, EnvVarSource, Volume
from finetune_operator.api.scheduling import PRIORITY_LABEL
from finetune_operator.profiles.model import Profile, matches
from finetune_trainer.config.storage_schemes import PVC
from finetune_trainer.config.uris import dotted_path

TEMPLATE = "spec.workers.template"


def violations(job: FineTuneJob, profile: Profile) -> Iterator[str]:
    """The sentences for everything in the job that the profile does not allow."""
    workers, limits = job.spec.workers, profile.limits
    template = workers.template
    # An elastic job that may not have all of its nodes runs on fewer (Profiles.apply).
    field, nodes = ("nodes", workers.nodes) if workers.min_nodes is None else ("minNodes", workers.min_nodes)
    if limits.max_nodes is not None and nodes > limits.max_nodes:
        yield f"spec.workers.{field}: profile {profile.name} allows at most {limits.max_nodes}: use fewer nodes"
    named = [
        ("spec.workers.image", "image", workers.image, limits.images),
        (f"{TEMPLATE}.serviceAccountName", "service account", template.service_account_name, limits.service_accounts),
        (f"{TEMPLATE}.priorityClassName", "priority class", template.priority_class_name, limits.priority_classes),
        (f"{TEMPLATE}.runtimeClassName", "runtime class", template.runtime_class_name, limits.runtime_classes),
        (
            "spec.scheduling.workloadPriorityClass"
            if job.spec.scheduling.workload_priority_class is not None
            else f"metadata.labels[{PRIORITY_LABEL}]",
            "workload priority class",
            job.workload_priority_class,
            limits.workload_priority_classes,
        ),
    ]
    for secret in template.image_pull_secrets:
        named.append((f"{TEMPLATE}.imagePullSecrets", "Secret", secret, limits.image_pull_secrets))
    for key in template.labels:
        named.append((f"{TEMPLATE}.labels", "label", key, limits.labels))
    for key in template.annotations:
        named.append((f"{TEMPLATE}.annotations", "annotation", key, limits.annotations))
    for index, container in enumerate(template.init_containers):
        named.append((f"{TEMPLATE}.initContainers[{index}].image", "image", container.image, limits.images))
    for capability in template.security_context.capabilities:
        named.append((f"{TEMPLATE}.securityContext.capabilities", "capability", capability, limits.capabilities))
    for reference in job.uri_references:
        field = f"{dotted_path(reference.where)}.credentials"
        named.append((field, "Secret", reference.credentials, limits.credential_secrets))
        if reference.uri is not None and PVC.matches(reference.uri):
            yield from _volume_type(profile, dotted_path(reference.field), "persistentVolumeClaim")
    for field, kind, name, patterns in named:
        if name is not None and not matches(patterns, name):
            yield _refusal(profile, field, f"the {kind} {name!r}", patterns)
    if template.host_network and not limits.host_network:
        yield f"{TEMPLATE}.hostNetwork: profile {profile.name} does not allow the node's network: remove it"
    if template.security_context.run_as_user == 0 and not limits.run_as_root:
        yield f"{TEMPLATE}.securityContext.runAsUser: profile {profile.name} does not allow root: use another user id"
    yield from _environment(profile, f"{TEMPLATE}.env", template.env)
    for index, container in enumerate(template.init_containers):
        yield from _environment(profile, f"{TEMPLATE}.initContainers[{index}].env", container.env)
    if workers.scratch.type == "PersistentVolume":
        yield from _volume_type(profile, "spec.workers.scratch.type", "ephemeral")
    for index, volume in enumerate(template.volumes):
        yield from _volume(profile, f"{TEMPLATE}.volumes[{index}]", volume)


def _environment(profile: Profile, field: str, variables: list[EnvVar]) -> Iterator[str]:
    for index, variable in enumerate(variables):
        source = variable.value_from or EnvVarSource()
        if source.secret_key_ref is not None:
            yield from _secret(profile, f"{field}[{index}].valueFrom.secretKeyRef", source.secret_key_ref.name)
        if source.config_map_key_ref is not None:
            yield from _volume_type(profile, f"{field}[{index}].valueFrom.configMapKeyRef", "configMap")


def _volume(profile: Profile, field: str, volume: Volume) -> Iterator[str]:
    content = volume.document()[volume.type]
    field = f"{field}.{volume.type}"
    if volume.type == "projected":
        for index, source in enumerate(_list(content.get("sources"))):
            for kind, projection in source.items() if isinstance(source, dict) else [("source", source)]:
                yield from _source(profile, f"{field}.sources[{index}].{kind}", kind, projection, "name")
    else:
        yield from _source(profile, field, volume.type, content, "secretName")


def _source(profile: Profile, field: str, kind: str, content: Any, name_key: str) -> Iterator[str]:
    """A volume's content, or one source of a projected volume."""
    if kind == "secret":
        yield from _secret(profile, field, content.get(name_key) if isinstance(content, dict) else None)
        return
    if kind not in profile.limits.volume_types or not isinstance(content, dict):
        yield from _volume_type(profile, field, kind)
    elif kind == "csi" and "nodePublishSecretRef" in content:
        reference = content["nodePublishSecretRef"]
        yield from _secret(
            profile, f"{field}.nodePublishSecretRef", reference.get("name") if isinstance(reference, dict) else None
        )
    elif kind == "image":
        image, allowed = content.get("reference"), profile.limits.images
        if not isinstance(image, str) or not matches(allowed, image):
            yield _refusal(profile, f"{field}.reference", f"the image {image!r}", allowed)


def _volume_type(profile: Profile, field: str, kind: str) -> Iterator[str]:
    allowed: list[str] = [*profile.limits.volume_types]
    if kind not in allowed:
        yield _refusal(profile, field, f"volumes of the type {kind}", allowed)


def _secret(profile: Profile, field: str, name: Any) -> Iterator[str]:
    patterns = profile.limits.secrets
    if not isinstance(name, str) or not matches(patterns, name):
        yield _refusal(profile, field, f"the Secret {name!r}", patterns)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _refusal(profile: Profile, field: str, what: str, allowed: list[str]) -> str:
    choices = f"use one of {', '.join(allowed)}" if allowed else "remove it"
    return f"{field}: profile {profile.name} does not allow {what}: {choices}, or ask an administrator to allow it"
