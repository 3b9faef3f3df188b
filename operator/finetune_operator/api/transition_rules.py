"""Which fields of an existing job may change: transition rules, generated from the table below.

A running job keeps its spec, except for the run policy. While it is suspended, every field may change that does not decide what
the weights mean: `finetune_trainer.checkpoint.run_identity` has the same list for a resume from a checkpoint, and a test
compares the two.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from finetune_operator.api.workers import Workers
from finetune_trainer.config import TrainSpec
from finetune_trainer.config.base import Rule, Section, is_satisfied
from finetune_trainer.config.data_checks import DataChecksConfig

MUTABLE_FIELDS: Mapping[str, tuple[str, ...]] = {
    "model": (),  # CEL cannot read model.config, only compare the section as a whole
    "data": (
        "train.credentials", "evaluation", "replay.credentials", "checks", "augmentation.synonyms.credentials",
        "augmentation.backTranslation.batchSize", "augmentation.backTranslation.forward.credentials",
        "augmentation.backTranslation.back.credentials",
    ),
    "objective": (),
    "method": (),
    "training": (
        "epochs", "maxSteps", "microBatchSize", "earlyStopping", "lossAnomaly", "precision", "gradientCheckpointing",
        "logEverySteps",
    ),
    "checkpoint": ("credentials", "everySteps", "everyMinutes", "keepLast"),
}  # fmt: skip
"""By section of the spec, the fields that may change while the job is suspended; sections that are absent here may change as a
whole."""

REPORTING_CHECKS = ("truncation", "unlearnable")
"""Checks of the data whose policies never alter the training rows."""

SUSPENDED = "self.runPolicy.suspend || oldSelf.runPolicy.suspend"
"""Either state suspends the job: one request may suspend it and change it, or change it and resume it."""

NEW_NAME = "apply the document under another metadata.name"
IDENTITY = f"decides what the weights mean, so that it cannot change: {NEW_NAME}"
STORAGE = f"the run continues from its checkpoints there, so that it cannot change: {NEW_NAME}"
ALTERING = f"Drop and Scrub change the training rows, so that they cannot be set or removed: {NEW_NAME}"


def suspend_first(*fields: str) -> str:
    """The sentence for a change of fields, or of the section itself, while the job is not suspended."""
    names = " and ".join(filter(None, [", ".join(fields[:-1]), *fields[-1:]])) or "it"
    return f"{names} can change only while the job is suspended: set runPolicy.suspend: true first"


def transition_rules() -> Iterator[Rule]:
    """The rules of the spec that compare it with its stored version."""
    for section in (*TrainSpec.model_fields, "scheduling"):
        if section in MUTABLE_FIELDS:
            yield from _section_rules(section, TrainSpec.model_fields[section])
        else:
            yield Rule(f"{SUSPENDED} || self.{section} == oldSelf.{section}", suspend_first(), section)
    yield from _data_check_rules()
    yield from _workers_rules()
    yield Rule(
        "has(self.managedBy) == has(oldSelf.managedBy) && (!has(self.managedBy) || self.managedBy == oldSelf.managedBy)",
        f"another controller may work on the job already, so that it cannot change: {NEW_NAME}",
        "managedBy",
    )


def _section_rules(section: str, field: FieldInfo) -> Iterator[Rule]:
    """One rule for each field that never changes, and one for those that a suspended job may change."""
    mutable = _subfields(MUTABLE_FIELDS[section])
    if not mutable:
        yield Rule(f"self.{section} == oldSelf.{section}", IDENTITY, section)
        return
    fields = dict(_fields(_section_type(field)))
    for name, child in fields.items():
        path = f"{section}.{name}"
        if mutable.get(name) != ():
            message = STORAGE if path == "checkpoint.storage" else IDENTITY
            yield Rule(" && ".join(_unchanged(path, child, mutable.get(name, ()))), message, path)
    unchanged = []
    for name, below in mutable.items():
        unchanged += _same_mutable_part(f"{section}.{name}", fields[name], below)
    yield Rule(f"{SUSPENDED} || {' && '.join(unchanged)}", suspend_first(*mutable), section)


def _workers_rules() -> Iterator[Rule]:
    """The number of nodes of an elastic job may change while it runs, for example by `kubectl scale`; nothing else may."""
    unchanged = []
    for name, field in _fields(Workers):
        if name != "nodes":
            unchanged += _same(f"workers.{name}", field, ())
    yield Rule(f"{SUSPENDED} || {' && '.join(unchanged)}", suspend_first(), "workers")
    same = "self.workers.nodes == oldSelf.workers.nodes"
    yield Rule(
        f"{SUSPENDED} || {same} || has(self.workers.minNodes)",
        f"{suspend_first('nodes')}, or create the job with minNodes",
        "workers.nodes",
    )
    yield Rule(
        f"{SUSPENDED} || {same} || !has(self.scheduling.queueName)",
        "the queue has admitted the job with its present number of nodes: set runPolicy.suspend: true first",
        "scheduling.queueName",
    )


def _data_check_rules() -> Iterator[Rule]:
    """The policy of a check may change unless it alters the training rows."""
    for name, field in _fields(DataChecksConfig):
        path = f"data.checks.{name}"
        is_same = f"self.{path} == oldSelf.{path}"
        if _can_alter(field):
            yield Rule(f"{is_same} || !({_alters(path)})", ALTERING, path)
        elif name not in REPORTING_CHECKS:
            yield Rule(is_same, IDENTITY, path)


def _same_data_checks() -> list[str]:
    """Clauses that are all true unless the policy of a check changes that alters the rows neither before nor after it."""
    parts = []
    for name, field in _fields(DataChecksConfig):
        path = f"data.checks.{name}"
        if _can_alter(field):
            parts.append(f"(self.{path} == oldSelf.{path} || {_alters(path)})")
        elif name in REPORTING_CHECKS:
            parts.append(f"self.{path} == oldSelf.{path}")
    return parts


def _can_alter(field: FieldInfo) -> bool:
    return bool(set(DataChecksConfig.altering) & set(typing.get_args(field.annotation)))


def _alters(path: str) -> str:
    policies = ", ".join(f"'{policy}'" for policy in DataChecksConfig.altering)
    return f"self.{path} in [{policies}] || oldSelf.{path} in [{policies}]"


def transition_errors(old: Section, new: Section, path: str = "") -> list[str]:
    """One sentence for each change from `old` to `new` that a transition rule refuses, as the API server evaluates them."""
    errors = []
    rules = [rule for rule in new.rules if rule.is_transition]
    before, after = (old.document(), new.document()) if rules else ({}, {})
    for rule in rules:
        if not is_satisfied(rule, after, before):
            errors.append(f"{'.'.join(filter(None, (path, rule.where)))}: {rule.message}")
    for name in type(new).model_fields:
        old_value, new_value = getattr(old, name), getattr(new, name)
        if isinstance(old_value, Section) and isinstance(new_value, Section):
            alias = type(new).model_fields[name].alias or name
            errors += transition_errors(old_value, new_value, f"{path}.{alias}" if path else alias)
    return errors


def _subfields(paths: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The paths by their first part; an empty tuple stands for the field as a whole."""
    result: dict[str, tuple[str, ...]] = {}
    for path in paths:
        first, _, rest = path.partition(".")
        result[first] = (*result.get(first, ()), rest) if rest else ()
    return result


def _unchanged(path: str, field: FieldInfo, mutable: tuple[str, ...] = (), guards: tuple[str, ...] = ()) -> list[str]:
    """Clauses that are all true if a field is unchanged, except for the mutable fields below it.

    Clauses are disjunctions without nested parentheses, on which the parser takes exponential time. `guards` are true where an
    object above the field is absent.
    """
    if not mutable:
        return _same(path, field, guards)
    below = _subfields(mutable)
    kept = [(name, child) for name, child in _fields(_section_type(field)) if below.get(name) != ()]
    if typing.get_origin(field.annotation) is list:
        # CEL has no index in a comprehension, so each field is compared as the list of its values in all items.
        return [_join(*guards, _same_in_items(path, name, child)) for name, child in kept]
    clauses = []
    if field.default is None:
        clauses.append(_join(*guards, f"has(self.{path}) == has(oldSelf.{path})"))
        guards = (*guards, *_absent(path))
    for name, child in kept:
        clauses += _unchanged(f"{path}.{name}", child, below.get(name, ()), guards)
    return clauses


def _same_mutable_part(path: str, field: FieldInfo, mutable: tuple[str, ...], guards: tuple[str, ...] = ()) -> list[str]:
    """Clauses that are all true if the mutable fields below a field are unchanged; other changes are not their concern."""
    if path == "data.checks":
        return _same_data_checks()
    if not mutable:
        return _same(path, field, guards)
    fields = dict(_fields(_section_type(field)))
    is_list = typing.get_origin(field.annotation) is list
    if is_list:
        guards = (*guards, f"size(self.{path}) != size(oldSelf.{path})")
    elif field.default is None:
        guards = (*guards, *_absent(path))
    clauses = []
    for name, below in _subfields(mutable).items():
        if is_list:
            clauses.append(_join(*guards, _same_in_items(path, name, fields[name])))
        else:
            clauses += _same_mutable_part(f"{path}.{name}", fields[name], below, guards)
    return clauses


def _same(path: str, field: FieldInfo, guards: tuple[str, ...]) -> list[str]:
    new, old = f"self.{path}", f"oldSelf.{path}"
    if field.default is not None:
        return [_join(*guards, f"{new} == {old}")]
    return [_join(*guards, f"has({new}) == has({old})"), _join(*guards, *_absent(path), f"{new} == {old}")]


def _same_in_items(path: str, name: str, field: FieldInfo) -> str:
    value = f"item.{name}" if field.default is not None else f"has(item.{name}) ? [item.{name}] : []"
    return f"self.{path}.map(item, {value}) == oldSelf.{path}.map(item, {value})"


def _absent(path: str) -> tuple[str, str]:
    return f"!has(self.{path})", f"!has(oldSelf.{path})"


def _join(*terms: str) -> str:
    return f"({' || '.join(terms)})" if len(terms) > 1 else terms[0]


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def _section_type(field: FieldInfo) -> type[Section]:
    """The model of a field that is a section, an optional section or a list of sections."""
    pending = [field.annotation]
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return annotation
        if typing.get_origin(annotation) in (list, types.UnionType, typing.Union, typing.Annotated):
            pending += typing.get_args(annotation)
    raise TypeError(f"{field.annotation} is no section")
