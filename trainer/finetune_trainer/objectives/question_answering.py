"""Find the words of a context that answer a question (Rajpurkar et al. 2016, 2018; Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow
import torch
from transformers import AutoModelForQuestionAnswering

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives.question_answering import QuestionAnsweringConfig as Options
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate, pad_to_shape
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.answers import Answer, parse_answers
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import BatchStatistics, Objective
from finetune_trainer.objectives.forward import forward
from finetune_trainer.objectives.losses.cross_entropy import summed_cross_entropy
from finetune_trainer.objectives.metrics import squad
from finetune_trainer.objectives.tokenization import SEGMENTS, fingerprint, require_offsets

# An example is a question with all windows of its context, so that its answer can be looked for in all of them.
WINDOWS = "windows"  # the number of tokens of each
BEGINS, ENDS = "begins", "ends"  # of each token: its characters in the context, OUTSIDE for others
TARGET = "target"  # of each window: the answer's first token, then of each its last
TEXTS, TEXT_LENGTHS = "texts", "text_lengths"  # UTF-8 of the context and of all right answers; bytes of each
OUTSIDE = -1
FOR_METRICS = (BEGINS, ENDS, WINDOWS, TEXTS, TEXT_LENGTHS)  # tensors of a batch that are not the model's


class Found(NamedTuple):
    """What a model says of each window, [windows]: its best span of characters, the logits of it, of none, and of all spans."""

    begins: torch.Tensor
    ends: torch.Tensor
    score: torch.Tensor
    null: torch.Tensor
    total: torch.Tensor


class Said(NamedTuple):
    """An answer: the characters of the context from `begin` to `end`, none if they are the same, and its probability."""

    begin: int
    end: int
    probability: float


class QuestionAnswering(Objective):
    """Cross entropy of the answer's first and last token, the mean of both, in float32; windows are the terms.

    A window without the answer points to the token that sums it up ([CLS]), or to its first. A batch has `input_ids`,
    `attention_mask` and, where the tokenizer has segments, `token_type_ids`, all [windows, tokens], `labels` [windows, 2], and
    what the metrics need.
    """

    task: ClassVar[str] = "question-answering"  # of transformers before 5 and of the hub
    auto_class: ClassVar[Any] = AutoModelForQuestionAnswering
    adapter_task: ClassVar[str | None] = "QUESTION_ANS"
    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {
        TOKENS: pyarrow.list_(pyarrow.int32()),
        SEGMENTS: pyarrow.list_(pyarrow.int8()),
        BEGINS: pyarrow.list_(pyarrow.int32()),
        ENDS: pyarrow.list_(pyarrow.int32()),
        WINDOWS: pyarrow.list_(pyarrow.int32()),
        TARGET: pyarrow.list_(pyarrow.int32()),
        TEXTS: pyarrow.list_(pyarrow.uint8()),
        TEXT_LENGTHS: pyarrow.list_(pyarrow.int32()),
    }
    has_new_head: ClassVar[bool] = True

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        options = spec.objective.config
        assert isinstance(options, Options)
        require_offsets(processor)
        self._stride = min(options.stride, spec.data.max_length // 3)
        self._longest = options.max_answer_length

    def collect_statistics(self, records: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """Whether the model is to learn that some questions have no answer."""
        return {"unanswerable": any(not parse_answers(record.values["answers"]) for record in records())}

    @property
    def identity(self) -> Any:
        return [fingerprint(self.processor), self.spec.data.max_length, self.spec.overlong, self._stride]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """The question beside each window of the context; it may fill half of a sequence at most, and loses its end else.

        Raises DataError for an answer that is not where it is said to be.
        """
        questions = self._shortened([record.values["question"] for record in records])
        encoded = self.processor(
            questions, [record.values["context"] for record in records], truncation="only_second", stride=self._stride,
            max_length=self.spec.data.max_length, return_overflowing_tokens=True, return_offsets_mapping=True,
            return_token_type_ids=True, return_attention_mask=False,
        )  # fmt: skip
        windows: list[list[int]] = [[] for _ in records]
        for window, record in enumerate(encoded["overflow_to_sample_mapping"]):
            windows[record].append(window)
        for record, question, own in zip(records, questions, windows, strict=True):
            answers = _checked(record)
            if not question.strip() or 1 not in encoded.sequence_ids(own[0]):
                yield EncodedRow([], EncodeStatus.EMPTY)
            elif len(own) > 1 and self.spec.overlong == "Drop":
                yield EncodedRow([], EncodeStatus.DROPPED)
            else:
                status = EncodeStatus.KEPT if question == record.values["question"] else EncodeStatus.TRUNCATED
                if len(own) > 1:
                    status = EncodeStatus.SPLIT if self.spec.overlong == "Split" else EncodeStatus.TRUNCATED
                kept = own if status is EncodeStatus.SPLIT else own[:1]
                yield EncodedRow([self._example(encoded, kept, record.values["context"], answers)], status)

    def model_config_overrides(self) -> dict[str, Any]:
        """One output for the first token of an answer, and one for its last."""
        return {"num_labels": 2, "pad_token_id": self.processor.pad_token_id}

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """Each window is a sequence, padded at the right; the texts stand one after the other."""
        windows = [window for row in rows for window in _windows(row)]
        batch = collate(windows, self.processor.pad_token_id, layout)
        shape = batch[TOKENS].shape
        targets = [row[TARGET].astype(np.int64).reshape(-1, 2) for row in rows]
        batch["labels"] = torch.from_numpy(np.concatenate(targets) if rows else np.full((1, 2), IGNORE_INDEX))
        if SEGMENTS in self.processor.model_input_names:
            batch[SEGMENTS] = pad_to_shape([window[SEGMENTS] for window in windows], shape)
        for name in (BEGINS, ENDS):
            batch[name] = pad_to_shape([window[name] for window in windows], shape, OUTSIDE)
        batch[WINDOWS] = torch.tensor([len(row[WINDOWS]) for row in rows], dtype=torch.int64)
        batch[TEXTS] = torch.from_numpy(np.concatenate([row[TEXTS] for row in rows] or [np.zeros(0, np.uint8)]))
        most = max((len(row[TEXT_LENGTHS]) for row in rows), default=0)
        batch[TEXT_LENGTHS] = pad_to_shape([row[TEXT_LENGTHS] for row in rows], (len(rows), most), OUTSIDE)
        return batch

    def count(self, batch: Batch) -> Sequence[int]:
        """Windows."""
        return [int((batch["labels"][:, 0] != IGNORE_INDEX).sum())]

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Summed cross entropy of `model` on the batch."""
        return self._loss_sum(_scores(model, batch), batch)

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: exact matches, F1 and number of the questions that have an answer, then of those that have none."""
        scores = _scores(model, batch)
        sums = torch.zeros(2, 3, dtype=torch.float64)
        for said, (context, *right) in zip(self._answers(scores, batch), _texts(batch), strict=True):
            answer = context[said.begin : said.end]
            sums[int(not right)] += torch.tensor([*squad.agreement(answer, right), 1.0], dtype=torch.float64)
        return BatchStatistics(self._loss_sum(scores, batch), sums.flatten())

    def answers(self, model: Any, batch: Batch) -> list[Said]:
        """What the model answers to each question of the batch."""
        return list(self._answers(_scores(model, batch), batch))

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Shares of SQuAD's official script; of questions with and without an answer apart, where there are both."""
        kinds = statistics.reshape(2, 3)
        found, names = {"loss": losses[0]}, ("exactMatch", "f1")
        for name, value in zip(names, kinds.sum(0) / max(kinds[:, 2].sum(), 1), strict=False):
            found[name] = float(value)
        if kinds[:, 2].all():
            for kind, (*sums, count) in zip(("answerable", "unanswerable"), kinds, strict=True):
                found |= {f"{name}[{kind}]": float(value / count) for name, value in zip(names, sums, strict=True)}
        return found

    def _shortened(self, questions: Sequence[str]) -> list[str]:
        room = max(self.spec.data.max_length // 2 - self.processor.num_special_tokens_to_add(pair=True), 1)
        encoded = self.processor(list(questions), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [
            question if len(places) <= room else question[: places[room - 1][1]]
            for question, places in zip(questions, encoded["offset_mapping"], strict=True)
        ]

    def _example(self, encoded: Any, windows: Sequence[int], context: str, answers: Sequence[Answer]) -> Mapping[str, Any]:
        tokens = [np.array(encoded[TOKENS][window], np.int32) for window in windows]
        within = [np.array([part == 1 for part in encoded.sequence_ids(window)]) for window in windows]
        places = [
            np.where(inside[:, None], encoded["offset_mapping"][window], OUTSIDE)
            for window, inside in zip(windows, within, strict=True)
        ]
        answer = answers[0] if answers else None
        none = [int(_sums_up(torch.from_numpy(own)[None], self.processor.cls_token_id)) for own in tokens]
        texts = [text.encode() for text in (context, *(answer.text for answer in answers))]
        return {
            TOKENS: np.concatenate(tokens),
            SEGMENTS: np.concatenate([encoded[SEGMENTS][window] for window in windows]),
            BEGINS: np.concatenate(places)[:, 0],
            ENDS: np.concatenate(places)[:, 1],
            WINDOWS: [len(own) for own in tokens],
            TARGET: [number for own, at in zip(places, none, strict=True) for number in _target(own, answer) or (at, at)],
            TEXTS: np.frombuffer(b"".join(texts), np.uint8),
            TEXT_LENGTHS: [len(text) for text in texts],
        }

    def _loss_sum(self, scores: torch.Tensor, batch: Batch) -> torch.Tensor:
        return summed_cross_entropy(scores.flatten(0, 1), batch["labels"].flatten())[None] / 2

    def _found(self, scores: torch.Tensor, batch: Batch) -> Found:
        """Of all spans in the context that are not too long the one whose first and last token have the largest sum."""
        first, last = scores.masked_fill((batch[BEGINS] == OUTSIDE)[:, None], -torch.inf).unbind(1)
        best, start = first.new_full(first.shape[:1], -torch.inf), batch["labels"].new_zeros(len(first))
        end = start
        for more in range(min(self._longest, first.shape[1])):
            score, at = (first[:, : first.shape[1] - more] + last[:, more:]).max(1)
            start, end = (torch.where(score > best, new, old) for new, old in ((at, start), (at + more, end)))
            best = torch.maximum(score, best)
        none = _sums_up(batch[TOKENS], self.processor.cls_token_id)
        null = scores.gather(2, none[:, None, None].expand(-1, 2, 1)).sum((1, 2))
        begins, ends = batch[BEGINS].gather(1, start[:, None])[:, 0], batch[ENDS].gather(1, end[:, None])[:, 0]
        return Found(begins, ends, best, null, scores.logsumexp(2).sum(1))

    def _answers(self, scores: torch.Tensor, batch: Batch) -> Iterator[Said]:
        found, begin = Found(*(values.cpu() for values in self._found(scores.detach().float(), batch))), 0
        for count in batch[WINDOWS].tolist():
            yield self._answer(Found(*(values[begin : begin + count] for values in found)))
            begin += count

    def _answer(self, found: Found) -> Said:
        """The best of all windows; none, if the data has such and even the window least sure of it is surer of that."""
        best, doubt = int(found.score.argmax()), int(found.null.argmin())
        if self.facts["unanswerable"] and found.null[doubt] > found.score[best]:
            return Said(0, 0, float((found.null[doubt] - found.total[doubt]).exp()))
        return Said(int(found.begins[best]), int(found.ends[best]), float((found.score[best] - found.total[best]).exp()))


def _scores(model: Any, batch: Batch) -> torch.Tensor:
    """Logits [windows, 2, tokens] of first and last tokens. Padding, which differs with the batch, has no share in them."""
    outputs = forward(model, {name: tensor for name, tensor in batch.items() if name not in FOR_METRICS})
    logits = torch.stack([outputs.start_logits, outputs.end_logits], 1)
    return logits.masked_fill(batch["attention_mask"][:, None] == 0, torch.finfo(logits.dtype).min)


def _sums_up(tokens: torch.Tensor, cls: int | None) -> torch.Tensor:
    """Where each window [windows, tokens] has the token that sums it up, 0 if it has none."""
    return (tokens == (-1 if cls is None else cls)).int().argmax(1)


def _windows(row: Sample) -> list[Sample]:
    parts = {name: np.split(row[name], np.cumsum(row[WINDOWS])[:-1]) for name in (TOKENS, SEGMENTS, BEGINS, ENDS)}
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def _texts(batch: Batch) -> Iterator[list[str]]:
    """Of each row the context and the right answers."""
    whole, begin = batch[TEXTS].cpu().numpy().tobytes(), 0
    for lengths in batch[TEXT_LENGTHS].tolist():
        texts = []
        for length in lengths:
            if length != OUTSIDE:
                texts.append(whole[begin : begin + length].decode())
                begin += length
        yield texts


def _checked(record: Row) -> list[Answer]:
    answers, context = parse_answers(record.values["answers"]), record.values["context"]
    for text, start in answers:
        if start < 0 or not context.startswith(text, start):
            elsewhere = context.find(text)
            advice = f"it stands at {elsewhere}: correct the start" if elsewhere >= 0 else "it stands nowhere: correct the row"
            raise record.error_for(
                "answers", f"has {text!r} at character {start} of the context, where it does not stand; {advice}"
            )
    return answers


def _target(places: Tokens, answer: Answer | None) -> tuple[int, int] | None:
    """First and last token of the answer within a window, whose tokens' characters are `places` [tokens, 2]; None outside."""
    inside = np.flatnonzero(places[:, 0] != OUTSIDE)
    if answer is None or not len(inside):
        return None
    begin, end = answer.start, answer.start + len(answer.text)
    if begin < places[inside[0], 0] or end > places[inside[-1], 1]:
        return None
    its = inside[(places[inside, 1] > begin) & (places[inside, 0] < end)]
    return (int(its[0]), int(its[-1])) if len(its) else None
