"""Learn to answer from conversations (Ouyang et al. 2022, arXiv:2203.02155)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives.instruction_tuning import InstructionTuningConfig as Options
from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives import chat
from finetune_trainer.objectives.base import BatchStatistics
from finetune_trainer.objectives.causal_lm import CausalLM, following
from finetune_trainer.objectives.chat import ASSISTANT, LEARNT, Chat, Messages, Written
from finetune_trainer.objectives.forward import forward
from finetune_trainer.objectives.losses.cross_entropy import guesses, summed_cross_entropy


class InstructionTuning(CausalLM):
    """CausalLM's loss, over the tokens that the assistant says.

    A conversation is never divided. In a batch the others' tokens have the label -100.
    """

    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {
        TOKENS: pyarrow.list_(pyarrow.int32()),
        LEARNT: pyarrow.list_(pyarrow.int8()),
    }

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        options = spec.objective.config
        assert isinstance(options, Options)
        self._options = options
        self._chat = Chat(spec, processor)

    @property
    def identity(self) -> Any:
        return [super().identity, self._chat.template, self._options.format, self._options.loss_on]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """A conversation by the chat template; what is too long loses its end, and all of it where nothing learnt is left."""
        for tokens, learnt in self._chat.tokenize([self._written(record) for record in records]):
            pieces, status = split_or_truncate(np.arange(len(tokens)), self.spec.data.max_length, self.spec.overlong)
            if pieces and not learnt[pieces[0]][1:].any():  # the first token is never predicted
                pieces, status = [], EncodeStatus.MASKED
            yield EncodedRow([{TOKENS: tokens[piece], LEARNT: learnt[piece]} for piece in pieces], status)

    def labels(self, row: Sample) -> Tokens:
        return chat.labels(row)

    def start(self, model: Any, world: ProcessGroup) -> None:
        self._chat.stop_generation(model)

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: learnt tokens that were guessed, and all."""
        logits, labels = forward(model, batch, use_cache=False).logits, following(batch["labels"])
        losses = summed_cross_entropy(logits.flatten(0, 1), labels.flatten())[None]
        return BatchStatistics(losses, guesses(logits, labels))

    def asked(self, prompt: str) -> Any:
        """The prompt is what a user says."""
        return [{"role": "user", "content": prompt}]

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Loss, perplexity, and the share of learnt tokens that were the likeliest."""
        guessed, learnt = statistics
        return super().metrics(losses, statistics) | {"accuracy": float(guessed / max(learnt, 1))}

    def _written(self, record: Row) -> Written:
        messages, role = self._messages(record)
        begin = _instructed(messages)
        shown = [message for example in record.examples for message in self._solved(example)]
        written = self._chat.write([*messages[:begin], *shown, *messages[begin:]], record, role, begin + len(shown))
        match self._options.loss_on:
            case "All":
                return written._replace(answers=[(0, len(written.text))])
            case "LastAssistant":
                return written._replace(answers=written.answers[-1:])
        return written

    def _solved(self, example: Row) -> Messages:
        """An example as turns of another conversation: without what the system says, up to the assistant's last word."""
        messages, _ = self._messages(example)
        end = max(index for index, message in enumerate(messages, start=1) if message["role"] == ASSISTANT)
        return messages[_instructed(messages) : end]

    def _messages(self, record: Row) -> tuple[Messages, str]:
        """The conversation, and the role of the column that is to blame if it cannot be used."""
        if self._options.format == "PromptCompletion":
            if not isinstance(record.values["prompt"], str):
                raise record.error_for("prompt", "is a list, and PromptCompletion needs a string: correct the row")
            return [
                {"role": "user", "content": record.values["prompt"]},
                {"role": ASSISTANT, "content": record.values["completion"]},
            ], "completion"
        messages = record.values["messages"]
        if self._options.loss_on != "All" and all(message["role"] != ASSISTANT for message in messages):
            raise record.error_for(
                "messages", "has no message of the assistant, so there is nothing to learn: correct or remove the row"
            )
        return messages, "messages"


def _instructed(messages: Messages) -> int:
    """How many messages come before the first one of the conversation itself."""
    return next((at for at, message in enumerate(messages) if message["role"] not in ("system", "developer")), len(messages))
