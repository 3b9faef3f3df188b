"""Prefer one answer to another (direct preference optimization, Rafailov et al. 2023, arXiv:2305.18290)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from torch.nn import functional

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives.preference_tuning import PreferenceTuningConfig as Options
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout
from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample, Tokens, document_lengths
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives import chat
from finetune_trainer.objectives.base import BatchStatistics
from finetune_trainer.objectives.causal_lm import CausalLM, following
from finetune_trainer.objectives.chat import ASSISTANT, LEARNT, Chat, Written
from finetune_trainer.objectives.forward import forward, unwrap_model
from finetune_trainer.objectives.losses.cross_entropy import summed_cross_entropy
from finetune_trainer.objectives.tokenization import require_offsets, tokenize_marked

ANSWERS = ("chosen", "rejected")
Marked = tuple[Tokens, Tokens]  # of a sequence the tokens, and for each of them whether it belongs to the answer


class PreferenceTuning(CausalLM):
    """A loss of the difference of two rewards, by how much likelier than at the start the model finds each answer.

    A row has the prompt with the chosen answer and then the prompt with the rejected one, as two documents. A batch has
    `input_ids`, `attention_mask` and `labels`, all [2 x pairs, tokens]: the chosen ones, then the rejected.
    """

    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {
        TOKENS: pyarrow.list_(pyarrow.int32()),
        LEARNT: pyarrow.list_(pyarrow.int8()),
        LENGTHS: pyarrow.list_(pyarrow.int32()),
    }

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        require_offsets(processor)
        options = spec.objective.config
        assert isinstance(options, Options)
        self._options = options
        self._template = chat.template(spec, processor)
        self._chat: Chat | None = None
        self._reference: Any = None

    def collect_statistics(self, records: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """Whether the rows are conversations, by the first one."""
        first = next(iter(records()), None)
        return {"conversations": first is not None and isinstance(first.values["prompt"], list)}

    def set_statistics(self, facts: dict[str, Any]) -> None:
        super().set_statistics(facts)
        self._chat = Chat(self.spec, self.processor) if facts["conversations"] else None

    @property
    def identity(self) -> Any:
        return [super().identity, self._template]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """Texts are put together as they are, and ended; conversations by the chat template. What is too long loses its end."""
        written = [self._written(record, answer) for record in records for answer in ANSWERS]
        sequences = self._chat.tokenize(written) if self._chat else self._tokenized(written)
        for pair in zip(sequences, sequences, strict=True):
            yield self._encoded(pair)

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """Padded at the right; each row becomes two sequences."""
        pairs = [_divided(row) for row in rows]
        batch = super().collate([chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs], [], layout)
        return batch if rows else {name: torch.cat([tensor, tensor]) for name, tensor in batch.items()}

    def labels(self, row: Sample) -> Tokens:
        return chat.labels(row)

    def count(self, batch: Batch) -> Sequence[int]:
        """Pairs."""
        return [int(_pairs(batch).sum())]

    def start(self, model: Any, world: ProcessGroup) -> None:
        """Keeps the starting model as reference, unless it will be below adapters anyway; and turns dropout off in the model.

        With dropout a model would differ from itself, at random.
        """
        if self._chat:
            self._chat.stop_generation(model)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if not self.spec.method.config.trains_adapter and not self._options.reference_free:
            self._reference = copy.deepcopy(model).to(world.device).eval().requires_grad_(False)

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Summed loss of the pairs."""
        losses, _ = self._compared(model, batch)
        return losses.sum()[None]

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: pairs, those in which the chosen answer has the higher reward, and the sums of both rewards."""
        losses, rewards = self._compared(model, batch)
        chosen, rejected = rewards[:, _pairs(batch)].double()
        counts = [torch.ones_like(chosen), (chosen > rejected).double(), chosen, rejected]
        return BatchStatistics(losses.sum()[None], torch.stack([count.sum() for count in counts]))

    def asked(self, prompt: str) -> Any:
        """The prompt is what a user says, where the rows are conversations."""
        return [{"role": "user", "content": prompt}] if self._chat else prompt

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Loss, share of pairs in the right order (a tie is none), and the mean rewards and their difference."""
        pairs, right, chosen, rejected = statistics
        means = {"accuracy": right, "margin": chosen - rejected, "chosenReward": chosen, "rejectedReward": rejected}
        return {"loss": losses[0]} | {name: float(total / max(pairs, 1)) for name, total in means.items()}

    def _compared(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of each pair [pairs], 0 where there is none, and the rewards [chosen and rejected, pairs]; float32."""
        start = self._at_start(model, batch)  # first, so that nothing comes between the forward pass and its backward
        ratios = (_log_probabilities(model, batch) - start).reshape(2, -1)
        rewards = self._options.beta * ratios
        margin = rewards[0] - rewards[1]
        match self._options.loss:
            case "Sigmoid":
                wrong = self._options.label_smoothing
                losses = -(1 - wrong) * functional.logsigmoid(margin) - wrong * functional.logsigmoid(-margin)
            case "Hinge":
                losses = functional.relu(1 - margin)
            case "IPO":
                # Of the mean over an answer's tokens: of their sum, long answers would be pulled harder.
                means = ratios / _learnt(batch).sum(1).clamp(min=1).reshape(2, -1)
                losses = (means[0] - means[1] - 1 / (2 * self._options.beta)).square()
        return losses.where(_pairs(batch), 0.0), rewards

    def _at_start(self, model: Any, batch: Batch) -> torch.Tensor:
        """What the starting model says of each sequence, [sequences]; all ranks call it equally often, as they do the model."""
        if self._options.reference_free:
            return torch.zeros(len(batch["labels"]), device=batch["labels"].device)
        with torch.no_grad():
            if self._reference is not None:
                return _log_probabilities(self._reference, batch)
            adapted = unwrap_model(model)  # DeepSpeed's engine does not know whether its model trains
            was_training = adapted.training
            adapted.eval()
            try:
                with adapted.disable_adapter():
                    return _log_probabilities(model, batch)
            finally:
                adapted.train(was_training)

    def _written(self, record: Row, answer: str) -> Written:
        prompt, told = record.values["prompt"], record.values[answer]
        for role, value in (("prompt", prompt), (answer, told)):
            if isinstance(value, list) != self.facts["conversations"]:
                kinds = ("a string", "a list of messages")[:: 1 if isinstance(value, str) else -1]
                raise record.error_for(
                    role, f"is {kinds[0]}, and the first row's prompt is {kinds[1]}: write all of them alike"
                )
        if self._chat is None:
            return Written(prompt + told, [(len(prompt), len(prompt + told))])
        said = sum(message["role"] == ASSISTANT for message in told)
        if not said:
            raise record.error_for(answer, "has no message of the assistant, so there is nothing to prefer: correct the row")
        written = self._chat.write([*prompt, *told], record, answer)
        return written._replace(answers=written.answers[-said:])

    def _tokenized(self, texts: Sequence[Written]) -> Iterator[Marked]:
        end = self.processor.eos_token_id
        for tokens, learnt in tokenize_marked([one.text for one in texts], [one.answers for one in texts], self.processor):
            keep = len(tokens) - (len(tokens) > 0 and tokens[-1] == end)
            yield np.append(tokens[:keep], np.int32(end)), np.append(learnt[:keep], np.int8(1))

    def _encoded(self, pair: tuple[Marked, Marked]) -> EncodedRow:
        places, statuses = zip(
            *(split_or_truncate(np.arange(len(tokens)), self.spec.data.max_length, self.spec.overlong) for tokens, _ in pair),
            strict=True,
        )
        if EncodeStatus.DROPPED in statuses:
            return EncodedRow([], EncodeStatus.DROPPED)
        shortened = [(tokens[piece], learnt[piece]) for (tokens, learnt), [piece] in zip(pair, places, strict=True)]
        if not all(learnt[1:].any() for _, learnt in shortened):  # the first token is never predicted
            return EncodedRow([], EncodeStatus.MASKED)
        both = {name: np.concatenate(parts) for name, parts in zip((TOKENS, LEARNT), zip(*shortened, strict=True), strict=True)}
        example = both | {LENGTHS: np.array([len(tokens) for tokens, _ in shortened], np.int32)}
        return EncodedRow([example], EncodeStatus.TRUNCATED if EncodeStatus.TRUNCATED in statuses else EncodeStatus.KEPT)


def _divided(row: Sample) -> tuple[Sample, Sample]:
    at = int(document_lengths(row)[0])
    return {name: row[name][:at] for name in (TOKENS, LEARNT)}, {name: row[name][at:] for name in (TOKENS, LEARNT)}


def _learnt(batch: Batch) -> torch.Tensor:
    return following(batch["labels"]) != IGNORE_INDEX


def _pairs(batch: Batch) -> torch.Tensor:
    """Which pairs of the batch are there, [pairs] bool: a rank without rows has one that is not."""
    return _learnt(batch).any(1).reshape(2, -1).all(0)


def _log_probabilities(model: Any, batch: Batch) -> torch.Tensor:
    """Of the answer in each sequence, given what stands before it; [sequences] float32."""
    logits = forward(model, batch, use_cache=False).logits
    each = zip(logits.unbind(), following(batch["labels"]).unbind(), strict=True)
    return -torch.stack([summed_cross_entropy(scores, labels) for scores, labels in each])
