"""Prefer one answer to another (direct preference optimization, Rafailov et al. 2023, arXiv:2305.18290)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow
import torch

from finetune_trainer.config.objectives.preference_tuning import PreferenceTuningConfig
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample, Tokens, document_lengths
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeIssue, EncodeStatus, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import (
    BatchStatistics,
    Collator,
    Encoder,
    Metrics,
    Objective,
    ObjectiveContext,
    Statistics,
)
from finetune_trainer.objectives.description import Block, row_block
from finetune_trainer.objectives.inputs.chat import LOSS_MASK, ChatRenderer, RenderedChat, is_blank, is_learned
from finetune_trainer.objectives.inputs.chat_coverage import Conversation
from finetune_trainer.objectives.inputs.chat_template import set_chat_template, tools_template
from finetune_trainer.objectives.inputs.tokenization import (
    encoding_fingerprint,
    require_eos_token,
    require_offsets,
    tokenize_with_mask,
)
from finetune_trainer.objectives.instruction_tuning import MaskedLabelsCollator
from finetune_trainer.objectives.losses.preference import PreferenceLoss, ReferenceModel, is_pair
from finetune_trainer.objectives.model_setups.causal import CausalModelSetup

ANSWERS = ("chosen", "rejected")


class PreferenceTuning(Objective):
    """A loss of the difference between two rewards, each of which says how much likelier than at the start an answer is."""

    @classmethod
    def assemble(cls, config: PreferenceTuningConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for a tokenizer without end-of-text token or character offsets."""
        require_eos_token(processor)
        require_offsets(processor)
        encoder = PreferenceEncoder(processor, context, config)
        reference = ReferenceModel(config, context.has_adapters)
        loss = PreferenceLoss(config, reference)
        return cls(
            encoder, PreferenceCollator(processor), PreferenceSetup(encoder=encoder, reference=reference),
            loss, PreferenceMetrics(loss),
        )  # fmt: skip

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """The prompt with each answer."""
        return [row_block(answer, batch, row, self.processor, with_labels=True) for row, answer in enumerate(ANSWERS)]


class MaskedSequence(NamedTuple):
    """A prompt with an answer."""

    tokens: Tokens
    mask: Tokens
    """1 for the tokens of the answer, [tokens] int8."""


class PreferenceEncoder(Encoder):
    """The prompt with the chosen answer and then the prompt with the rejected one, as two documents of one example.

    Rows are texts or conversations, as the first training row is.
    """

    fields = MappingProxyType(
        {
            TOKENS: pyarrow.list_(pyarrow.int32()),
            LOSS_MASK: pyarrow.list_(pyarrow.int8()),
            LENGTHS: pyarrow.list_(pyarrow.int32()),
        }
    )

    def __init__(self, processor: Any, context: ObjectiveContext, config: PreferenceTuningConfig) -> None:
        super().__init__(processor, context)
        self.config = config
        self.template = set_chat_template(config, context, processor)
        self.renderer: ChatRenderer | None = None
        """Renders conversations; None for texts, and until the statistics are set."""

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """Whether the rows are conversations, by the first one."""
        first = next(iter(rows()), None)
        return {"conversations": first is not None and isinstance(first.values["prompt"], list)}

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Prepare for texts or for conversations; raises ConfigurationError for a chat template that cannot be used."""
        super().set_statistics(statistics)
        self.renderer = None
        if statistics["conversations"]:
            self.renderer = ChatRenderer(self.config, self.context, self.processor)

    @property
    def fingerprint(self) -> Any:
        tokens = encoding_fingerprint(self.processor, self.context)
        return [tokens, self.template, tools_template(self.processor)]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """Prompt and answer are joined as texts and ended, or rendered by the chat template; the end may be truncated."""
        statuses = [self._find_unusable(row) for row in rows]
        usable = [row for row, status in zip(rows, statuses, strict=True) if status is None]
        chats = [self._render(row, answer) for row in usable for answer in ANSWERS]
        sequences = self.renderer.tokenize(chats) if self.renderer else self._tokenize(chats)
        names = iter([chat.drops_names for chat in chats])
        for status in statuses:
            if status is not None:
                yield EncodedRow([], status)
                continue
            encoded = self._encode_pair([MaskedSequence(*sequence) for sequence in islice(sequences, len(ANSWERS))])
            drops_names = any(islice(names, len(ANSWERS)))
            yield encoded._replace(issues=[EncodeIssue.UNWRITTEN_NAMES]) if drops_names else encoded

    def _find_unusable(self, row: Row) -> EncodeStatus | None:
        """Why nothing can be learned from the row, None if something can."""
        for role in ("prompt", *ANSWERS):
            self._require_same_kind(row, role, row.values[role])
        chosen, rejected = (row.values[role] for role in ANSWERS)
        if any(_is_empty(answer) for answer in (chosen, rejected)):
            return EncodeStatus.UNANSWERED
        return EncodeStatus.IDENTICAL if chosen == rejected else None

    def _render(self, row: Row, answer_role: str) -> RenderedChat:
        prompt, answer = row.values["prompt"], row.values[answer_role]
        if self.renderer is None:
            return RenderedChat(prompt + answer, [(len(prompt), len(prompt + answer))])
        messages = [*prompt, *answer]
        learned = [index for index in range(len(prompt), len(messages)) if is_learned(messages[index])]
        if not learned:
            raise row.error_for(answer_role, "has no message of the assistant, so there is nothing to prefer: correct the row")
        conversation = Conversation(messages, row.values.get("tools", ()), row.values.get("template_options", {}))
        chats = self.renderer.render(conversation, row, answer_role, learned)
        if len(chats) > 1:
            raise row.error_for(
                answer_role,
                "has several messages of the assistant, which the chat template writes in another way once more follow: keep "
                "the last one, and put the others into the prompt",
            )
        return chats[0]

    def _require_same_kind(self, row: Row, role: str, value: Any) -> None:
        """Raises DataError for a text among conversations, or a conversation among texts."""
        is_conversation = isinstance(value, list)
        if is_conversation == self.statistics["conversations"]:
            return
        text, conversation = "a string", "a list of messages"
        kind, expected = (conversation, text) if is_conversation else (text, conversation)
        raise row.error_for(role, f"is {kind}, and the first row's prompt is {expected}: write all of them alike")

    def _tokenize(self, texts: Sequence[RenderedChat]) -> Iterator[tuple[Tokens, Tokens]]:
        """The tokens of each text, ended by exactly one end-of-text token, which is part of the answer."""
        if not texts:
            return
        eos = self.processor.eos_token_id
        answers = [text.answers for text in texts]
        for tokens, mask in tokenize_with_mask([text.text for text in texts], answers, self.processor):
            count = len(tokens)
            if count and tokens[-1] == eos:
                count -= 1
            yield np.append(tokens[:count], np.int32(eos)), np.append(mask[:count], np.int8(1))

    def _encode_pair(self, pair: Sequence[MaskedSequence]) -> EncodedRow:
        """The example of both sequences, dropped if one is to be dropped; masked if no answer or no difference is left."""
        kept, statuses = [], []
        for tokens, mask in pair:
            pieces, status = split_or_truncate(np.arange(len(tokens)), self.context.max_length, self.context.overlong)
            if status is EncodeStatus.DROPPED:
                return EncodedRow([], EncodeStatus.DROPPED)
            [piece] = pieces
            kept.append(MaskedSequence(tokens[piece], mask[piece]))
            statuses.append(status)
        is_learnable = all(sequence.mask[1:].any() for sequence in kept)  # the first token is never predicted
        if not is_learnable or np.array_equal(kept[0].tokens, kept[1].tokens):
            return EncodedRow([], EncodeStatus.MASKED)
        example = {
            TOKENS: np.concatenate([sequence.tokens for sequence in kept]),
            LOSS_MASK: np.concatenate([sequence.mask for sequence in kept]),
            LENGTHS: np.array([len(sequence.tokens) for sequence in kept], np.int32),
        }
        is_truncated = EncodeStatus.TRUNCATED in statuses
        return EncodedRow([example], EncodeStatus.TRUNCATED if is_truncated else EncodeStatus.KEPT)


def _is_empty(answer: str | list[dict[str, Any]]) -> bool:
    """Whether an answer, or the last message of one, says nothing."""
    return not answer.strip() if isinstance(answer, str) else is_blank(answer[-1])


class PreferenceCollator(Collator):
    """The chosen sequences of all rows, then the rejected ones, padded at the right."""

    def __init__(self, tokenizer: Any) -> None:
        self.sequences = MaskedLabelsCollator(tokenizer)

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        chosen, rejected = [], []
        for sample in samples:
            at = int(document_lengths(sample)[0])
            chosen.append({name: sample[name][:at] for name in (TOKENS, LOSS_MASK)})
            rejected.append({name: sample[name][at:] for name in (TOKENS, LOSS_MASK)})
        batch = self.sequences.collate(chosen + rejected, [], layout)
        if not samples:  # a batch without rows has one sequence, and needs two
            return batch.map(lambda tensor: torch.cat([tensor, tensor]))
        return batch

    def count_terms(self, batch: Batch) -> Sequence[int]:
        """Pairs."""
        return [int(is_pair(batch).sum())]


@dataclass(kw_only=True)
class PreferenceSetup(CausalModelSetup):
    """A causal language model without dropout, with a reference model."""

    encoder: PreferenceEncoder
    reference: ReferenceModel

    def prepare(self, model: Any, group: ProcessGroup) -> None:
        """Turn dropout off and capture the reference: with dropout a model would differ from itself at random."""
        if self.encoder.renderer:
            self.encoder.renderer.stop_generation_at_end_of_turn(model)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        self.reference.capture(model, group.device)

    def format_prompt(self, prompt: str) -> Any:
        """The prompt, as a user's message where the rows are conversations."""
        return [{"role": "user", "content": prompt}] if self.encoder.renderer else prompt


class PreferenceMetrics(Metrics[Batch]):
    """The share of pairs in which the chosen answer has the higher reward (a tie does not count), and the mean rewards."""

    def __init__(self, loss: PreferenceLoss) -> None:
        self.loss = loss

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: pairs, correctly ordered pairs, and the sums of the chosen and of the rejected rewards."""
        losses, rewards = self.loss.compare(model, batch)
        chosen, rejected = rewards[:, is_pair(batch)].double()
        terms = [torch.ones_like(chosen), (chosen > rejected).double(), chosen, rejected]
        return BatchStatistics(losses.sum()[None], torch.stack([term.sum() for term in terms]))

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """`loss`, `accuracy`, `margin` (the mean difference of the rewards), `chosenReward` and `rejectedReward`."""
        pairs, correct, chosen, rejected = statistics
        sums = {"accuracy": correct, "margin": chosen - rejected, "chosenReward": chosen, "rejectedReward": rejected}
        return {"loss": losses[0]} | {name: float(total / max(pairs, 1)) for name, total in sums.items()}
