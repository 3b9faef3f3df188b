"""Write one text after reading another: translation, summarization and any other task from text to text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow
import torch

from finetune_trainer.config.objectives.seq2seq import Seq2SeqConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeIssue, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.huggingface import languages
from finetune_trainer.huggingface.generation import token_heartbeat
from finetune_trainer.objectives.base import (
    BatchStatistics,
    Collator,
    Encoder,
    Metrics,
    Objective,
    ObjectiveContext,
    Statistics,
    unwrap_model,
)
from finetune_trainer.objectives.description import Block
from finetune_trainer.objectives.inputs.text_to_text import collate_pairs, pair_blocks, target_tokens
from finetune_trainer.objectives.inputs.texts import TEXT_FIELDS, collate_texts, store_texts, texts_of_rows
from finetune_trainer.objectives.inputs.tokenization import encoding_fingerprint, require_eos_token
from finetune_trainer.objectives.losses.encoder_decoder import EncoderDecoderLoss
from finetune_trainer.objectives.losses.from_outputs import count_labels
from finetune_trainer.objectives.metrics.text_generation import TEXT_METRICS
from finetune_trainer.objectives.metrics.token_accuracy import TokenAccuracy
from finetune_trainer.objectives.model_setups.encoder_decoder import EncoderDecoderSetup

TARGET = "target"  # the tokens to write


class Seq2Seq(Objective):
    """The loss of an encoder-decoder; an evaluation can also generate texts and compare them with the targets."""

    @classmethod
    def assemble(cls, config: Seq2SeqConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for a tokenizer without an end-of-text token, or without the document's languages."""
        require_eos_token(processor)
        language = languages.set_languages(processor, config.languages, "spec.objective.seq2Seq.languages")
        loss = EncoderDecoderLoss(context.label_smoothing)
        token_accuracy = TokenAccuracy(loss, "tokenAccuracy", with_perplexity=True)
        return cls(
            encoder=Seq2SeqEncoder(processor, context, config),
            collator=Seq2SeqCollator(processor),
            model_setup=Seq2SeqSetup(eos_token_id=processor.eos_token_id, language=language),
            loss=loss,
            metrics=Seq2SeqMetrics(token_accuracy, config, context, processor),
        )

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """The text and the target."""
        return pair_blocks(batch, self.processor)


class Seq2SeqEncoder(Encoder):
    """Text and target, each with the tokenizer's special tokens."""

    fields = MappingProxyType({TOKENS: pyarrow.list_(pyarrow.int32()), TARGET: pyarrow.list_(pyarrow.int32()), **TEXT_FIELDS})

    def __init__(self, processor: Any, context: ObjectiveContext, config: Seq2SeqConfig) -> None:
        super().__init__(processor, context)
        self.config = config

    @property
    def fingerprint(self) -> Any:
        config = self.config
        language_pair = config.languages and list(config.languages)
        source = encoding_fingerprint(self.processor, self.context)
        return [*source, config.max_target_length, config.prefix, language_pair, bool(config.metrics)]

    @property
    def max_lengths(self) -> Mapping[str, int]:
        """Of the text and of the target."""
        return {**super().max_lengths, "spec.objective.seq2Seq.maxTargetLength": self.config.max_target_length}

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """A text or target that is too long is truncated at its end; a truncated target has no end to learn.

        Metrics compare generated texts with the whole target, which an example keeps as a text.
        """
        prompts = [self._prompt(row) for row in rows]
        inputs, targets = self._tokenize("text", prompts), self._tokenize("text_target", [row.values["target"] for row in rows])
        for row, prompt, text, target in zip(rows, prompts, inputs, targets, strict=True):
            issues = self._find_issues(text, target)
            if not all(row.values[role].strip() for role in ("text", "target")):
                yield EncodedRow([], EncodeStatus.EMPTY)
            elif issues and self.context.overlong == "Drop":
                yield EncodedRow([], EncodeStatus.DROPPED, issues=issues)
            else:
                if EncodeIssue.LONG_TEXT in issues:
                    text = self._truncate(prompt)
                example = {TOKENS: text, TARGET: target[: self.config.max_target_length]}
                texts = store_texts([row.values["target"]] if self.config.metrics else [])
                yield EncodedRow([{**example, **texts}], EncodeStatus.TRUNCATED if issues else EncodeStatus.KEPT, issues=issues)

    def _find_issues(self, text: Tokens, target: Tokens) -> list[EncodeIssue]:
        issues = []
        if len(text) > self.context.max_length:
            issues.append(EncodeIssue.LONG_TEXT)
        if len(target) > self.config.max_target_length:
            issues.append(EncodeIssue.LONG_TARGET)
        return issues

    def _prompt(self, row: Row) -> str:
        """The row's text after its examples: for each a line of text, a line of target, and an empty line."""
        prefix = self.config.prefix
        examples = [f"{prefix}{example.values['text']}\n{example.values['target']}\n\n" for example in row.examples]
        return "".join([*examples, prefix, row.values["text"]])

    def _tokenize(self, argument: str, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text; `argument` is the tokenizer's parameter for texts to read, or for texts to write."""
        encoded = self.processor(
            **{argument: list(texts)}, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        tokenized = [np.array(tokens, np.int32) for tokens in encoded["input_ids"]]
        if argument == "text":
            return tokenized
        return [target_tokens(tokens, self.processor.eos_token_id) for tokens in tokenized]

    def _truncate(self, text: str) -> Tokens:
        """The tokens of a text that is too long, with the tokenizer's special tokens."""
        encoded = self.processor(text, return_attention_mask=False, truncation=True, max_length=self.context.max_length)
        return np.array(encoded["input_ids"], np.int32)


class Seq2SeqCollator(Collator):
    """Pads at the right."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        inputs, targets = [sample[TOKENS] for sample in samples], [sample[TARGET] for sample in samples]
        batch = collate_pairs(inputs, targets, self.tokenizer, layout)
        batch.targets |= collate_texts(samples)
        return batch

    def count_terms(self, batch: Batch) -> Sequence[int]:
        """Tokens of the targets."""
        return [count_labels(batch.targets["labels"])]


@dataclass(kw_only=True)
class Seq2SeqSetup(EncoderDecoderSetup):
    """An encoder-decoder that generates in the target language, where it supports several."""

    language: Any

    def prepare(self, model: Any, group: ProcessGroup) -> None:
        """Set the language; raises ConfigurationError for a model that defines no first token of the decoder."""
        if self.language is not None:
            self.language.configure(model)
        super().prepare(model, group)


class Seq2SeqMetrics(Metrics[Batch]):
    """Loss, perplexity and token accuracy, and the document's metrics of generated texts."""

    def __init__(self, token_accuracy: TokenAccuracy, config: Seq2SeqConfig, context: ObjectiveContext, tokenizer: Any) -> None:
        self.token_accuracy = token_accuracy
        self.config = config
        self.zero_stage = context.zero_stage
        self.tokenizer = tokenizer
        self.text_metrics = [TEXT_METRICS[name]() for name in dict.fromkeys(config.metrics)]

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: those of the token accuracy, then each metric's sums over the generated texts."""
        measured = self.token_accuracy.measure(model, batch)
        if not self.text_metrics:
            return measured
        rows = (batch.targets["labels"] != IGNORE_INDEX).any(1)
        # Rows without a target are generated as well: other ranks may be waiting for this one.
        generated = self._decode(self._generate(model, batch)[rows])
        references = [text for texts in texts_of_rows(batch) for text in texts]
        sums: list[float] = []
        for metric in self.text_metrics:
            sums += metric.sums(generated, references)
        text_sums = torch.tensor(sums, dtype=torch.float64)
        return BatchStatistics(measured.losses, torch.cat([measured.statistics.cpu(), text_sums]))

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """Those of the token accuracy, then `bleu` and `rouge1`, `rouge2` and `rougeL`."""
        widths = [2, *(metric.width for metric in self.text_metrics)]
        token_sums, *text_sums = np.split(statistics, np.cumsum(widths)[:-1])
        metrics = self.token_accuracy.compute(losses, token_sums)
        for metric, sums in zip(self.text_metrics, text_sums, strict=True):
            metrics |= metric.scores(sums)
        return metrics

    def _generate(self, model: Any, batch: Batch) -> torch.Tensor:
        """The generated tokens of each row, [sequences, at most maxTargetLength + 1]: the first one starts the decoder."""
        # With ZeRO-3 no rank may stop before the others.
        is_synced = self.zero_stage == 3 and torch.distributed.is_initialized()
        generator = unwrap_model(model)
        max_length = generator.generation_config.max_length
        generator.generation_config.max_length = None  # with max_new_tokens it would log a warning for each batch
        tokens: torch.Tensor = generator.generate(
            **batch.inputs, do_sample=False, num_beams=self.config.beams, max_new_tokens=self.config.max_target_length,
            use_cache=True, synced_gpus=is_synced, stopping_criteria=token_heartbeat(),
        )  # fmt: skip
        generator.generation_config.max_length = max_length
        return tokens

    def _decode(self, tokens: torch.Tensor) -> list[str]:
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in tokens]
