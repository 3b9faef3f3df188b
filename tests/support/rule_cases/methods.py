"""Cases of the model and of the method."""

from __future__ import annotations

from tests.support.rule_cases.documents import ABSENT, IMAGES, PRETRAINED, PROMPTED, TWO_TASKS, Case, spec

CASES: tuple[Case, ...] = (
    Case(
        "spec.method.type",
        "adapters need pretrained weights",
        spec(model=PRETRAINED["model"], method__type="LoRA"),
        spec(method__type="LoRA"),
    ),
    Case(
        "spec.method.lora.frozenAdapters",
        "frozen adapters need a model with one task",
        spec(**TWO_TASKS, model=PRETRAINED["model"], method={"type": "LoRA", "lora": {"rank": 4}}),
        spec(**TWO_TASKS, model=PRETRAINED["model"], method={"type": "LoRA", "lora": {"frozenAdapters": [{"source": "file:///a"}]}}),
    ),
    Case(
        "spec.export.mergeAdapters",
        "adapters that tasks share",
        spec(**TWO_TASKS, model=PRETRAINED["model"], method__type="LoRA"),
        spec(**TWO_TASKS, model=PRETRAINED["model"], method__type="LoRA", export__mergeAdapters=False),
    ),
    Case("spec.model.source", "initialization Pretrained needs weights", spec(model=PRETRAINED["model"]), spec(
        model={"tokenizer": {"source": "hf://organisation/name"}, "config": {"model_type": "llama"}}
    )),
    Case("spec.model.tokenizer", "without model.source", {}, spec(model__tokenizer=ABSENT)),
    Case("spec.model.tokenizer", "an image model has no tokenizer", IMAGES, IMAGES | spec(model__tokenizer={"train": {}})),
    Case("spec.model.tokenizer.train", "pretrained weights need their own vocabulary", {}, spec(
        model__source="hf://organisation/name", model__initialization="Pretrained"
    )),
    Case(
        "spec.model.tokenizer",
        "exactly one of source",
        spec(model__tokenizer={"source": "hf://organisation/name"}),
        spec(model__tokenizer__source="hf://organisation/name"),
    ),
    Case("spec.model.tokenizer", "exactly one of source", {}, spec(model__tokenizer={})),
    Case(
        "spec.method.lora",
        "options for LoRA",
        spec(model=PRETRAINED["model"], method={"type": "LoRA", "lora": {"rank": 8}}),
        spec(model=PRETRAINED["model"], method={"type": "Full", "lora": {"rank": 8}}),
    ),
    Case(
        "spec.method.ia3",
        "options for IA3",
        spec(model=PRETRAINED["model"], method={"type": "IA3", "ia3": {}}),
        spec(model=PRETRAINED["model"], method={"type": "LoRA", "ia3": {}}),
    ),
    Case(
        "spec.method.lora.frozenAdapters[0].source",
        "begin the URI with",
        spec(**PRETRAINED, method={"type": "LoRA", "lora": {"frozenAdapters": [{"source": "s3://a/b"}]}}),
        spec(**PRETRAINED, method={"type": "LoRA", "lora": {"frozenAdapters": [{"source": "a/b"}]}}),
    ),
    Case(
        "spec.method.lora.dora",
        "DoRA adapters cannot be added to other",
        spec(**PRETRAINED, method={"type": "LoRA", "lora": {"frozenAdapters": [{"source": "s3://a/b"}]}}),
        spec(**PRETRAINED, method={"type": "LoRA", "lora": {"dora": True, "frozenAdapters": [{"source": "s3://a/b"}]}}),
    ),
    Case(
        "spec.method.bottleneck",
        "options for Bottleneck",
        spec(**PRETRAINED, method={"type": "Bottleneck", "bottleneck": {"size": 8}}),
        spec(**PRETRAINED, method={"type": "LoRA", "bottleneck": {}}),
    ),
    Case(
        "spec.method.promptTuning",
        "options for PromptTuning",
        spec(**PROMPTED, method__promptTuning={"virtualTokens": 8}),
        spec(model=PRETRAINED["model"], method={"type": "LoRA", "promptTuning": {}}),
    ),
    Case(
        "spec.method.type",
        "prompt tuning needs an objective that generates text",
        spec(**PROMPTED),
        spec(**PROMPTED, objective__type="MaskedLM"),
    ),
    *(
        Case(
            f"spec.method.{field}",
            "options for Full",
            spec(method={"type": "Full", field: value}),
            spec(model=PRETRAINED["model"], method={"type": "LoRA", field: value}),
        )
        for field, value in (("freeze", {"embeddings": True}), ("unfreeze", {"everySteps": 10}))
    ),
    Case("spec.method.freeze", "nothing is frozen", spec(method__freeze={"layers": 1}), spec(method__freeze={})),
    Case("spec.model.source", "begin the URI with", spec(model__source="pvc://claim/path"), spec(
        model__source="organisation/name"
    )),
    Case(
        "spec.model.tokenizer.source",
        "begin the URI with",
        spec(model__tokenizer={"source": "s3://bucket/path"}),
        spec(model__tokenizer={"source": "http://somewhere/else"}),
    ),
)  # fmt: skip
