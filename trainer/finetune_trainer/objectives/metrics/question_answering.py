"""Answers from a model's scores, and SQuAD's metrics of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.data.loading.dataset import TOKENS
from finetune_trainer.objectives.base import BatchStatistics, Encoder, Metrics, Statistics
from finetune_trainer.objectives.inputs.answer_windows import (
    BEGINS,
    ENDS,
    OUTSIDE,
    WINDOWS,
    find_summary_token,
)
from finetune_trainer.objectives.inputs.texts import texts_of_rows
from finetune_trainer.objectives.losses.from_outputs import OutputLoss
from finetune_trainer.objectives.metrics.squad import exact_match_and_f1


class PredictedAnswer(NamedTuple):
    """An answer: the characters of the context from `begin` to `end`, which are equal for no answer, and its probability."""

    begin: int
    end: int
    probability: float


class WindowScores(NamedTuple):
    """The best span of each window, and the scores to compare it with; all [windows]."""

    begins: torch.Tensor
    """The first character of the best span."""
    ends: torch.Tensor
    """The character after the best span."""
    best: torch.Tensor
    """The logit of the best span."""
    null: torch.Tensor
    """The logit of no answer."""
    total: torch.Tensor
    """The log-sum-exp of the logits of all spans."""

    def select(self, begin: int, end: int) -> WindowScores:
        """The windows from `begin` to before `end`."""
        return WindowScores(*(values[begin:end] for values in self))


class AnswerFinder:
    """Chooses an answer among all spans of all windows of a context."""

    def __init__(self, cls_token_id: int | None, max_answer_length: int, encoder: Encoder) -> None:
        """`encoder` has the statistics of the training data; `max_answer_length` is in tokens."""
        self.cls_token_id = cls_token_id
        self.max_answer_length = max_answer_length
        self.encoder = encoder

    def find(self, scores: torch.Tensor, batch: Batch) -> list[PredictedAnswer]:
        """The answer to each question of the batch, from logits [windows, 2, tokens] of first and last tokens."""
        window_scores = WindowScores(*(values.cpu() for values in self._score_windows(scores.detach().float(), batch)))
        answers, begin = [], 0
        for count in batch.targets[WINDOWS].tolist():
            answers.append(self._choose(window_scores.select(begin, begin + count)))
            begin += count
        return answers

    def _score_windows(self, scores: torch.Tensor, batch: Batch) -> WindowScores:
        """The best span of each window: the one whose first and last token have the largest sum of logits.

        Only spans within the context and of at most `max_answer_length` tokens count.
        """
        begins, ends = batch.targets[BEGINS], batch.targets[ENDS]
        first, last = scores.masked_fill((begins == OUTSIDE)[:, None], -torch.inf).unbind(1)
        tokens = first.shape[1]
        best = first.new_full(first.shape[:1], -torch.inf)
        best_first = torch.zeros(len(first), dtype=torch.int64, device=first.device)
        best_last = best_first
        for distance in range(min(self.max_answer_length, tokens)):  # from the first token to the last
            score, position = (first[:, : tokens - distance] + last[:, distance:]).max(1)
            is_better = score > best
            best_first = torch.where(is_better, position, best_first)
            best_last = torch.where(is_better, position + distance, best_last)
            best = torch.maximum(score, best)
        summary = find_summary_token(batch.inputs[TOKENS], self.cls_token_id)
        null = scores.gather(2, summary[:, None, None].expand(-1, 2, 1)).sum((1, 2))
        return WindowScores(
            begins.gather(1, best_first[:, None])[:, 0], ends.gather(1, best_last[:, None])[:, 0], best, null,
            scores.logsumexp(2).sum(1),
        )  # fmt: skip

    def _choose(self, scores: WindowScores) -> PredictedAnswer:
        """The best span of all windows, or no answer where the data has such questions and its logit wins in every window."""
        window = int(scores.best.argmax())
        weakest_null = int(scores.null.argmin())
        if self.encoder.statistics["unanswerable"] and scores.null[weakest_null] > scores.best[window]:
            return PredictedAnswer(0, 0, float((scores.null[weakest_null] - scores.total[weakest_null]).exp()))
        probability = (scores.best[window] - scores.total[window]).exp()
        return PredictedAnswer(int(scores.begins[window]), int(scores.ends[window]), float(probability))


class QuestionAnsweringMetrics(Metrics[Batch]):
    """Exact match and F1, also separately for questions with and without an answer where there are both."""

    def __init__(self, loss: OutputLoss, finder: AnswerFinder) -> None:
        self.loss = loss
        self.finder = finder

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: exact matches, F1 and number of the questions with an answer, then of those without one."""
        scores = self.loss.forward(model, batch)
        sums = torch.zeros(2, 3, dtype=torch.float64)
        for answer, (context, *correct) in zip(self.finder.find(scores, batch), texts_of_rows(batch), strict=True):
            exact, f1 = exact_match_and_f1(context[answer.begin : answer.end], correct)
            sums[int(not correct)] += torch.tensor([exact, f1, 1.0], dtype=torch.float64)
        return BatchStatistics(self.loss.from_outputs(scores, batch, 0.0), sums.flatten())

    def answers(self, model: Any, batch: Batch) -> list[PredictedAnswer]:
        """The model's answer to each question of the batch."""
        return self.finder.find(self.loss.forward(model, batch), batch)

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """`loss`, `exactMatch` and `f1`, and with `[answerable]` and `[unanswerable]` where there are both."""
        by_kind = statistics.reshape(2, 3)
        questions = by_kind[:, 2]
        exact, f1 = by_kind[:, :2].sum(0) / max(questions.sum(), 1)
        metrics = {"loss": losses[0], "exactMatch": float(exact), "f1": float(f1)}
        if questions.all():
            for kind, (exact, f1, count) in zip(("answerable", "unanswerable"), by_kind, strict=True):
                metrics |= {f"exactMatch[{kind}]": float(exact / count), f"f1[{kind}]": float(f1 / count)}
        return metrics
