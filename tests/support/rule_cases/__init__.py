"""For every rule of the document a job that satisfies it and one that violates it; Python and a real API server check both."""

from tests.support.rule_cases import data, job, methods, metrics, objectives, training, workers
from tests.support.rule_cases.transitions import TRANSITIONS as TRANSITIONS

CASES = job.CASES + data.CASES + objectives.CASES + methods.CASES + training.CASES + metrics.CASES + workers.CASES
