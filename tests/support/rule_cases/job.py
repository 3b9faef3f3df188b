"""Cases of the job's name, of runPolicy, of checkpoint and of export."""

from __future__ import annotations

from tests.support.rule_cases.documents import PRETRAINED, PROMPTED, Case, address, spec

EXIT_CODES = {"operator": "In", "values": [42]}

CASES: tuple[Case, ...] = (
    Case("metadata.name", "not a valid name for pods", {"metadata.name": "a" * 50}, {"metadata.name": "a" * 51}),
    Case("metadata.name", "not a valid name for pods", {"metadata.name": "a-1"}, {"metadata.name": "1-a"}),
    Case("metadata.name", "not a valid name for pods", {"metadata.name": "a"}, {"metadata.name": "a.b"}),
    Case(
        "spec.export.best",
        "choosing the best model needs several evaluations",
        spec(export__best=True, evaluation__everySteps=1, data__evaluationFraction=0.5),
        spec(export__best=True, data__evaluationFraction=0.5),
    ),
    Case(
        "spec.export.mergeAdapters",
        "bottleneck adapters cannot be exported separately",
        spec(**PRETRAINED, method__type="Bottleneck"),
        spec(**PRETRAINED, method__type="Bottleneck", export__mergeAdapters=False),
    ),
    Case(
        "spec.export.mergeAdapters",
        "virtual tokens cannot be merged into the weights",
        spec(**PROMPTED),
        spec(**PROMPTED | {"export__mergeAdapters": True}),
    ),
    Case(
        "spec.checkpoint.everyMinutes",
        "the interval is given twice",
        spec(checkpoint__everyMinutes=0.5),
        spec(checkpoint__everyMinutes=0.5, checkpoint__everySteps=10),
    ),
    Case(
        "spec.scheduling.volcanoQueue",
        "only Volcano has such queues",
        spec(scheduling__gang="Volcano", scheduling__volcanoQueue="research"),
        spec(scheduling__gang="Native", scheduling__volcanoQueue="research"),
    ),
    Case(
        "spec.runPolicy.failurePolicy.rules[0]",
        "a rule needs exactly one of",
        spec(runPolicy__failurePolicy__rules=[{"action": "Fail", "onExitCodes": EXIT_CODES}]),
        spec(runPolicy__failurePolicy__rules=[{"action": "Fail", "onExitCodes": EXIT_CODES, "onReasons": ["Crashed"]}]),
    ),
    address("checkpoint.storage", "pvc://claim/a..b", "pvc://claim/../other"),
    address("checkpoint.storage", "pvc://claim", "pvc://../claim"),
    address("model.source", "pvc://claim/a", "pvc://Claim/a"),
    address("checkpoint.storage", "file:///mnt/checkpoints", "hf://organisation/name"),
    address("export.storage", "pvc://claim/model", "model"),
)  # fmt: skip
