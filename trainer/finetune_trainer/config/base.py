"""The base of all sections of the document: camelCase names, no unknown fields, and rules written once in CEL.

A rule across fields is one CEL expression. The generated CRD carries it as `x-kubernetes-validations`, so the API server
rejects an invalid document at `kubectl apply`; the same expression is evaluated here, so that `finetune validate`, a local run
and the operator reject it with the same sentence. Only the API server can evaluate rules that mention `oldSelf`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import cel
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

from finetune_trainer.config.storage_schemes import (
    SCHEMES,
    WRITABLE_SCHEMES,
    credential_keys,
    uri_forms,
    uri_pattern,
    uri_prefixes,
)


class Rule(NamedTuple):
    """One constraint across fields: a CEL expression over `self` and a sentence with the cause and the remedy.

    `where` is the field that the sentence is about, relative to the section that declares the rule.
    """

    expression: str
    message: str
    where: str = ""

    def schema(self) -> dict[str, JsonValue]:
        """The rule as an entry of `x-kubernetes-validations`."""
        entry: dict[str, JsonValue] = {"rule": self.expression, "message": self.message}
        return entry | {"fieldPath": f".{self.where}"} if self.where else entry

    @property
    def is_transition(self) -> bool:
        """Whether the rule compares the object with its stored version, which only an API server has."""
        return "oldSelf" in self.expression


@functools.cache
def _compile(expression: str) -> Any:
    return cel.compile(expression)


def is_satisfied(rule: Rule, value: Any, old: Any = None) -> bool:
    """Whether a value satisfies a rule; `old` is the stored version, for a transition rule."""
    return _holds(rule, cel.Context({"self": value, "oldSelf": old}))


def _holds(rule: Rule, context: cel.Context) -> bool:
    return _compile(rule.expression).execute(context) is True


@functools.cache
def _conjunction(rules: tuple[Rule, ...]) -> Any:
    """One program for all rules of a section, except for those that compare it with its stored version."""
    return cel.compile(" && ".join(f"({rule.expression})" for rule in rules if not rule.is_transition) or "true")


class Section(BaseModel):
    """The base class of every object in the document."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True, validate_default=True
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    def document(self) -> dict[str, Any]:
        """The section as in YAML: camelCase, with defaults, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """The section itself, which is immutable: pydantic would copy default sections for every document."""
        return self

    @model_validator(mode="after")
    def _validate_rules(self) -> Self:
        if not self.rules:
            return self
        document = self.document()
        context = cel.Context({"self": document})
        # To start a program takes much longer than to evaluate a rule, so all rules are evaluated at once if they hold.
        if _conjunction(self.rules).execute(context) is True:
            return self
        errors: list[InitErrorDetails] = []
        for rule in self.rules:
            if not rule.is_transition and not _holds(rule, context):
                error = PydanticCustomError("rule", "{message}", {"message": rule.message})
                location = tuple(rule.where.split(".")) if rule.where else ()
                errors.append(InitErrorDetails(type=error, loc=location, input=document))
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self


def explain(error: ValidationError, root: str = "") -> list[str]:
    """One sentence for each error: the path of the field as in the document, then the cause and the remedy."""
    return [f"{_path(root, *item['loc'])}: {_describe_error(item)}" for item in error.errors(include_url=False)]


def _path(root: str, *loc: int | str) -> str:
    text = root
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text or "document"


def _describe_error(item: Any) -> str:
    value = item.get("input")
    match item["type"]:
        case "extra_forbidden":
            return "no such field; remove it or correct its spelling"
        case "missing":
            return "is required; add it"
        case "literal_error":
            return f"{value!r} is not one of {item['ctx']['expected']}"
        case "rule":
            return str(item["msg"])
        case "value_error":
            return str(item["ctx"]["error"])
        case _:
            return f"{value!r} is invalid: {item['msg']}"


def requires_type(name: str, field: str, kind: str, below: str = "") -> Rule:
    """The rule that a section's `field` may be set only with type `name`.

    `kind` is the noun for the types, and `below` is the path of the section, with a dot at its end.
    """
    return Rule(
        f"self.type == '{name}' || !has(self.{field})",
        f"options for {name} have no effect with another {kind}: remove {below}{field}, or set {below}type: {name}",
        field,
    )


def describe_choices(choices: Mapping[str, type[Section]]) -> str:
    """The description of the field that chooses one of these sections: the first docstring line of each."""
    sentences = []
    for name, section in choices.items():
        line = (section.__doc__ or "").partition("\n")[0]
        sentences.append(f"{name}: {line[0].lower()}{line[1:]}")
    return " ".join(sentences)


def validated_by(rule: Rule) -> tuple[AfterValidator, Any]:
    """The metadata of an `Annotated` string that must satisfy the rule, for pydantic and for the API server."""

    def check(value: str) -> str:
        if not is_satisfied(rule, value):
            raise PydanticCustomError("rule", "{message}", {"message": f"{value!r} is invalid: {rule.message}"})
        return value

    return AfterValidator(check), Field(json_schema_extra={"x-kubernetes-validations": [rule.schema()]})


NO_TRAVERSAL = "!self.matches('^pvc://.*/[.][.](/.*)?$')"
"""A path cannot lead out of its claim."""

ReadableURI = Annotated[
    str,
    Field(max_length=1024, description=f"URI to read from: {uri_forms(SCHEMES)}."),
    *validated_by(
        Rule(
            f"self.matches('{uri_pattern(SCHEMES)}') && {NO_TRAVERSAL}",
            f"begin the URI with {uri_prefixes(SCHEMES)}, followed by a name or path",
        )
    ),
]
WritableURI = Annotated[
    str,
    Field(max_length=1024, description=f"URI to write to: {uri_forms(WRITABLE_SCHEMES)}."),
    *validated_by(
        Rule(
            f"self.matches('{uri_pattern(WRITABLE_SCHEMES)}') && {NO_TRAVERSAL}",
            f"begin the URI with {uri_prefixes(WRITABLE_SCHEMES)}, followed by a path",
        )
    ),
]
SecretName = Annotated[
    str,
    Field(
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="A Secret in the job's namespace that grants access to this URI. Its keys are "
        f"{', '.join(credential_keys())}. Without Kubernetes, or without a Secret, environment variables of the same names "
        "are used.",
    ),
]
FreeForm = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
