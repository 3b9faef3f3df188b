"""For every rule of the document a job that satisfies it and one that violates it; Python and a real API server check both."""

from tests.support.rule_cases import data, job, methods, metrics, objectives, training
from tests.support.rule_cases.documents import ABSENT, BASE

CASES = job.CASES + data.CASES + objectives.CASES + methods.CASES + training.CASES + metrics.CASES

# A field of spec, its value when the job is created and a changed one; only an API server compares them.
TRANSITIONS = (
    ("model", BASE["spec"]["model"], BASE["spec"]["model"] | {"attention": "Eager"}),
    ("data", {"train": [{"source": "file:///a"}]}, {"train": [{"source": "file:///b"}]}),
    ("objective", {"type": "CausalLM"}, ABSENT),
    ("method", {"type": "Full"}, {"type": "LoRA"}),
    ("training", {"seed": 1}, {"seed": 2}),
    ("deepspeed", {"zeroStage": 1}, {"zeroStage": 2}),
    ("evaluation", {}, {"generation": {"prompts": ["a"]}}),
    ("checkpoint", {"storage": "s3://bucket/a"}, {"storage": "s3://bucket/b"}),
    ("export", {}, {"mergeAdapters": False}),
    ("workers", {"nodes": 1}, {"nodes": 2}),
    ("managedBy", "kueue.x-k8s.io/multikueue", "example.com/controller"),
)

# Fields of spec that may change only while the job is suspended: the field, its value at creation and a changed one.
SUSPENDED_TRANSITIONS = (("scheduling", {"queueName": "a"}, {"queueName": "b"}),)
