"""Find the words of a context that answer a question (Rajpurkar et al. 2016, 2018; Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow
import torch
from transformers import AutoModelForQuestionAnswering

from finetune_trainer.config.objectives.question_answering import QuestionAnsweringConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate, pad_to_shape
from finetune_trainer.data.loading.dataset import TOKENS, Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeIssue, EncodeStatus
from finetune_trainer.data.records.answers import Answer, parse_answers
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import Collator, Encoder, ModelSetup, Objective, ObjectiveContext
from finetune_trainer.objectives.description import Block, token_segments
from finetune_trainer.objectives.inputs.answer_windows import (
    BEGINS,
    ENDS,
    OUTSIDE,
    TARGET,
    WINDOWS,
    answer_tokens,
    find_summary_token,
    split_windows,
)
from finetune_trainer.objectives.inputs.texts import TEXT_FIELDS, collate_texts, store_texts
from finetune_trainer.objectives.inputs.tokenization import SEGMENTS, encoding_fingerprint, require_offsets
from finetune_trainer.objectives.losses.cross_entropy import summed_cross_entropy
from finetune_trainer.objectives.losses.from_outputs import OutputLoss, count_labels
from finetune_trainer.objectives.metrics.question_answering import AnswerFinder, QuestionAnsweringMetrics

NO_ANSWER = -1  # not an id of a token


class QuestionAnswering(Objective):
    """Cross entropy of the answer's first and last token; windows of the context are the terms.

    A batch has the inputs `input_ids`, `attention_mask` and, where the tokenizer has segments, `token_type_ids`, all
    [windows, tokens], and the targets `labels` [windows, 2] and the fields that the metrics need.
    """

    metrics: QuestionAnsweringMetrics

    @classmethod
    def assemble(cls, config: QuestionAnsweringConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for a tokenizer without character offsets."""
        require_offsets(processor)
        encoder = WindowsEncoder(processor, context, config)
        loss = SpanLoss()
        finder = AnswerFinder(processor.cls_token_id, config.max_answer_length, encoder)
        return cls(
            encoder=encoder,
            collator=WindowsCollator(processor),
            model_setup=QuestionAnsweringSetup(pad_token_id=processor.pad_token_id),
            loss=loss,
            metrics=QuestionAnsweringMetrics(loss, finder),
        )

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """Each window, with the tokens of the answer; without an answer in it, with the token that stands for none."""
        blocks = []
        windows = split_windows(sample)
        for number, (window, (begin, end)) in enumerate(zip(windows, batch.targets["labels"].tolist(), strict=True), start=1):
            tokens = window[TOKENS]
            is_answer = (np.arange(len(tokens)) >= begin) & (np.arange(len(tokens)) <= end)
            has_answer = window[BEGINS][begin] != OUTSIDE
            labels = np.where(is_answer, tokens if has_answer else NO_ANSWER, IGNORE_INDEX)
            segments = token_segments(tokens, labels, self.processor, None if has_answer else lambda _: "no answer")
            blocks.append(Block(name=f"window {number}" if len(windows) > 1 else "question and context", segments=segments))
        return blocks


class WindowsEncoder(Encoder):
    """A question with each window of its context; all windows are one example, so that the answer is searched in all of them.

    A question may fill half of a sequence at most, and is truncated at its end otherwise. A window without the answer points to
    the token that summarizes it ([CLS]), or to its first.
    """

    fields = MappingProxyType(
        {
            TOKENS: pyarrow.list_(pyarrow.int32()),
            SEGMENTS: pyarrow.list_(pyarrow.int8()),
            BEGINS: pyarrow.list_(pyarrow.int32()),
            ENDS: pyarrow.list_(pyarrow.int32()),
            WINDOWS: pyarrow.list_(pyarrow.int32()),
            TARGET: pyarrow.list_(pyarrow.int32()),
            **TEXT_FIELDS,  # the context and all correct answers
        }
    )

    def __init__(self, processor: Any, context: ObjectiveContext, config: QuestionAnsweringConfig) -> None:
        super().__init__(processor, context)
        self.stride = min(config.stride, context.max_length // 3)

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """Whether some questions have no answer, which the model then learns."""
        return {"unanswerable": any(not parse_answers(row.values["answers"]) for row in rows())}

    @property
    def fingerprint(self) -> Any:
        return [*encoding_fingerprint(self.processor, self.context), self.stride]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """Raises DataError for an answer that is not at its position in the context."""
        questions = self._truncate_questions([row.values["question"] for row in rows])
        encoded = self.processor(
            questions, [row.values["context"] for row in rows], truncation="only_second", stride=self.stride,
            max_length=self.context.max_length, return_overflowing_tokens=True, return_offsets_mapping=True,
            return_token_type_ids=True, return_attention_mask=False,
        )  # fmt: skip
        row_windows: list[list[int]] = [[] for _ in rows]
        for window, row_number in enumerate(encoded["overflow_to_sample_mapping"]):
            row_windows[row_number].append(window)
        for row, question, windows in zip(rows, questions, row_windows, strict=True):
            answers = _validate_answers(row)
            if not question.strip() or 1 not in encoded.sequence_ids(windows[0]):
                yield EncodedRow([], EncodeStatus.EMPTY)
                continue
            is_cut = question != row.values["question"]
            if (is_cut or len(windows) > 1) and self.context.overlong == "Drop":
                yield EncodedRow([], EncodeStatus.DROPPED, issues=[EncodeIssue.LONG_QUESTION] * is_cut)
                continue
            kept = windows if self.context.overlong == "Split" else windows[:1]
            status = EncodeStatus.SPLIT if len(kept) > 1 else EncodeStatus.KEPT
            if is_cut or len(kept) < len(windows):
                status = EncodeStatus.TRUNCATED
            example = self._example(encoded, kept, row.values["context"], answers)
            issues = [EncodeIssue.LONG_QUESTION] * is_cut
            if answers and not _points_to_answer(example):
                issues.append(EncodeIssue.LOST_ANSWER)
            yield EncodedRow([example], status, issues=issues)

    def _truncate_questions(self, questions: Sequence[str]) -> list[str]:
        room = max(self.context.max_length // 2 - self.processor.num_special_tokens_to_add(pair=True), 1)
        encoded = self.processor(list(questions), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        truncated = []
        for question, offsets in zip(questions, encoded["offset_mapping"], strict=True):
            if len(offsets) > room:
                question = question[: offsets[room - 1][1]]
            truncated.append(question)
        return truncated

    def _example(self, encoded: Any, windows: Sequence[int], context: str, answers: Sequence[Answer]) -> Mapping[str, Any]:
        answer = answers[0] if answers else None
        window_tokens, window_offsets = [], []
        targets: list[int] = []
        for window in windows:
            tokens = np.array(encoded[TOKENS][window], np.int32)
            is_context = np.array([part == 1 for part in encoded.sequence_ids(window)])
            offsets = np.where(is_context[:, None], encoded["offset_mapping"][window], OUTSIDE)
            summary = int(find_summary_token(torch.from_numpy(tokens)[None], self.processor.cls_token_id))
            window_tokens.append(tokens)
            window_offsets.append(offsets)
            targets += answer_tokens(offsets, answer) or (summary, summary)
        all_offsets = np.concatenate(window_offsets)
        return {
            TOKENS: np.concatenate(window_tokens),
            SEGMENTS: np.concatenate([encoded[SEGMENTS][window] for window in windows]),
            BEGINS: all_offsets[:, 0],
            ENDS: all_offsets[:, 1],
            WINDOWS: [len(tokens) for tokens in window_tokens],
            TARGET: targets,
            **store_texts([context, *(answer.text for answer in answers)]),
        }


def _points_to_answer(example: Mapping[str, Any]) -> bool:
    """Whether the target of any window is a part of the context."""
    starts = np.cumsum([0, *example[WINDOWS][:-1]])
    return any(example[BEGINS][starts + example[TARGET][::2]] != OUTSIDE)


def _validate_answers(row: Row) -> list[Answer]:
    """The row's answers; raises DataError for one that is not at its position in the context."""
    answers, context = parse_answers(row.values["answers"]), row.values["context"]
    for text, start in answers:
        if start < 0 or not context.startswith(text, start):
            elsewhere = context.find(text)
            advice = f"it occurs at {elsewhere}: correct the start" if elsewhere >= 0 else "it does not occur: correct the row"
            raise row.error_for(
                "answers", f"has {text!r} at character {start} of the context, which has other text there; {advice}"
            )
    return answers


class WindowsCollator(Collator):
    """Each window is a sequence, padded at the right; the texts of all rows are one array."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        windows = [window for sample in samples for window in split_windows(sample)]
        batch = collate(windows, self.tokenizer.pad_token_id, layout)
        shape = batch.inputs[TOKENS].shape
        if SEGMENTS in self.tokenizer.model_input_names:
            batch.inputs[SEGMENTS] = pad_to_shape([window[SEGMENTS] for window in windows], shape)
        labels = np.full((1, 2), IGNORE_INDEX)
        if samples:
            labels = np.concatenate([sample[TARGET].astype(np.int64).reshape(-1, 2) for sample in samples])
        batch.targets |= {
            "labels": torch.from_numpy(labels),
            BEGINS: pad_to_shape([window[BEGINS] for window in windows], shape, OUTSIDE),
            ENDS: pad_to_shape([window[ENDS] for window in windows], shape, OUTSIDE),
            WINDOWS: torch.tensor([len(sample[WINDOWS]) for sample in samples], dtype=torch.int64),
            **collate_texts(samples),
        }
        return batch

    def count_terms(self, batch: Batch) -> Sequence[int]:
        """Windows."""
        return [count_labels(batch.targets["labels"][:, 0])]


@dataclass(kw_only=True)
class QuestionAnsweringSetup(ModelSetup):
    """A model with one output for the first token of an answer, and one for its last."""

    pad_token_id: int
    pipeline_task: str = "question-answering"  # of transformers before version 5, and of the Hub
    auto_class: Any = AutoModelForQuestionAnswering
    peft_task_type: str | None = "QUESTION_ANS"
    has_new_head: bool = True

    def config_overrides(self) -> dict[str, Any]:
        """Two outputs, and the padding token."""
        return {"num_labels": 2, "pad_token_id": self.pad_token_id}


class SpanLoss(OutputLoss):
    """The mean of the cross entropies of an answer's first and last token, in float32, without label smoothing."""

    def forward(self, model: Any, batch: Batch) -> torch.Tensor:
        """Logits [windows, 2, tokens] of first and last tokens; those of padding, which depends on the batch, are masked."""
        outputs = model(**batch.inputs)
        logits = torch.stack([outputs.start_logits, outputs.end_logits], 1)
        return logits.masked_fill(batch.inputs["attention_mask"][:, None] == 0, torch.finfo(logits.dtype).min)

    def from_outputs(self, outputs: torch.Tensor, batch: Batch, smoothing: float) -> torch.Tensor:
        """The summed loss, [1]."""
        return summed_cross_entropy(outputs.flatten(0, 1), batch.targets["labels"].flatten())[None] / 2
