"""What kopf is told: to watch and to leave no trace."""

from __future__ import annotations

from typing import Any

import kopf
from tests.support.fake_kubernetes import KEY, Setup
from tests.unit.operator.controller.test_informer_cache import job, pod

from finetune_operator.controller.handlers import kopf_settings, registry_of
from finetune_operator.controller.manager import Manager
from finetune_operator.settings import Settings

PODS = kopf.Resource("", "v1", "pods", kind="Pod", namespaced=True)
JOBS = kopf.Resource("finetune-operator.io", "v1alpha1", "finetunejobs", kind="FineTuneJob", namespaced=True)


def operator() -> Manager:
    result = Manager(Settings())
    result.controller = Setup().controller
    return result


def of(registry: kopf.OperatorRegistry, kind: str, resource: kopf.Resource) -> Any:
    """The one handler of a sort."""
    (handler,) = [item for item in getattr(registry, kind).get_all_handlers() if item.selector.check(resource)]
    return handler.fn


def test_only_handlers_that_leave_no_trace() -> None:
    registry = registry_of(operator())
    for resource in (PODS, JOBS):
        assert registry._watching.has_handlers(resource)
        assert registry._indexing.has_handlers(resource)
        assert not registry._changing.has_handlers(resource)
        assert not registry._spawning.has_handlers(resource)


def test_settings() -> None:
    settings = kopf_settings(Settings())
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.watching.label_selectors.collect(PODS) == ["finetune-operator.io/job"]
    assert settings.watching.label_selectors.collect(JOBS) == []
    body: Any = {"metadata": {"annotations": {"a": "b"}}}
    assert settings.persistence.diffbase_storage.fetch(body=body) is None
    assert settings.persistence.diffbase_storage.build(body=body) == {}


async def test_a_job_is_looked_at_again_unless_the_operator_wrote_it_itself() -> None:
    it = operator()
    registry = registry_of(it)
    index, event = of(registry, "_indexing", JOBS), of(registry, "_watching", JOBS)
    await index(body=job(5))
    await event(event={"type": "ADDED", "object": job(5)})
    assert len(it.queue) == 1
    it = operator()
    registry = registry_of(it)
    index, event = of(registry, "_indexing", JOBS), of(registry, "_watching", JOBS)
    await index(body=job(5))
    it.controller.memory(it.cache.jobs[KEY]).version = 5
    it.controller.cache = it.cache
    await event(event={"type": "MODIFIED", "object": job(5)})
    assert len(it.queue) == 0
    await event(event={"type": "DELETED", "object": job(6)})
    assert KEY not in it.cache.jobs
    assert len(it.queue) == 1


async def test_only_news_of_a_pod_counts() -> None:
    it = operator()
    registry = registry_of(it)
    index, event = of(registry, "_indexing", PODS), of(registry, "_watching", PODS)
    it.cache.put_pod(pod(4, phase="Pending"))  # as after its creation
    await index(body=pod(4, phase="Pending"))
    await event(event={"type": "ADDED", "object": pod(4, phase="Pending")})
    assert len(it.queue) == 0
    await index(body=pod(5, phase="Running"))
    await event(event={"type": "MODIFIED", "object": pod(5, phase="Running")})
    assert len(it.queue) == 1
    await event(event={"type": "DELETED", "object": pod(6)})
    assert it.cache.pods(KEY) == ()
