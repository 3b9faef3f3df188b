"""kopf handlers and settings: kopf watches objects but never writes to them."""

from __future__ import annotations

from typing import Any

import kopf
from tests.support.fake_kubernetes import KEY, job_body, pod_body

from finetune_operator.controller.handlers import build_kopf_settings, build_registry
from finetune_operator.controller.manager import Manager
from finetune_operator.settings import Settings

PODS = kopf.Resource("", "v1", "pods", kind="Pod", namespaced=True)
JOBS = kopf.Resource("finetune-operator.io", "v1alpha1", "finetunejobs", kind="FineTuneJob", namespaced=True)


def new_manager() -> Manager:
    return Manager(Settings())


def handler_of(registry: kopf.OperatorRegistry, kind: str, resource: kopf.Resource) -> Any:
    """The only handler of one kind for a resource."""
    (handler,) = [item for item in getattr(registry, kind).get_all_handlers() if item.selector.check(resource)]
    return handler.fn


def test_registers_only_index_and_event_handlers() -> None:
    registry = build_registry(new_manager())
    for resource in (PODS, JOBS):
        assert registry._watching.has_handlers(resource)
        assert registry._indexing.has_handlers(resource)
        assert not registry._changing.has_handlers(resource)
        assert not registry._spawning.has_handlers(resource)


def test_kopf_settings() -> None:
    settings = build_kopf_settings(Settings())
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.watching.label_selectors.collect(PODS) == ["finetune-operator.io/job"]
    assert settings.watching.label_selectors.collect(JOBS) == []
    body: Any = {"metadata": {"annotations": {"a": "b"}}}
    assert settings.persistence.diffbase_storage.fetch(body=body) is None
    assert settings.persistence.diffbase_storage.build(body=body) == {}


async def test_job_event_enqueues_job_unless_it_is_own_write() -> None:
    manager = new_manager()
    registry = build_registry(manager)
    index, event = handler_of(registry, "_indexing", JOBS), handler_of(registry, "_watching", JOBS)
    await index(body=job_body(5))
    await event(event={"type": "ADDED", "object": job_body(5)})
    assert len(manager.queue) == 1
    manager = new_manager()
    registry = build_registry(manager)
    index, event = handler_of(registry, "_indexing", JOBS), handler_of(registry, "_watching", JOBS)
    await index(body=job_body(5))
    manager.states.get(manager.cache.jobs[KEY]).resource_version = 5
    await event(event={"type": "MODIFIED", "object": job_body(5)})
    assert len(manager.queue) == 0
    await event(event={"type": "DELETED", "object": job_body(6)})
    assert KEY not in manager.cache.jobs
    assert len(manager.queue) == 1


async def test_pod_event_enqueues_job_only_for_changes() -> None:
    manager = new_manager()
    registry = build_registry(manager)
    index, event = handler_of(registry, "_indexing", PODS), handler_of(registry, "_watching", PODS)
    manager.cache.put_pod(pod_body(4, phase="Pending"))  # as the reconciler does after it has created the pod
    await index(body=pod_body(4, phase="Pending"))
    await event(event={"type": "ADDED", "object": pod_body(4, phase="Pending")})
    assert len(manager.queue) == 0
    await index(body=pod_body(5, phase="Running"))
    await event(event={"type": "MODIFIED", "object": pod_body(5, phase="Running")})
    assert len(manager.queue) == 1
    await event(event={"type": "DELETED", "object": pod_body(6)})
    assert manager.cache.pods(KEY) == ()
