"""Tiny models, documents and batches: large enough to be wrong, small enough to be quick."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
)

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.data.loading.dataloader import MicroBatch
from finetune_trainer.models.embeddings import grow_embeddings
from finetune_trainer.objectives import Objective
from finetune_trainer.training.engine import merge

VOCABULARY = 64
LABELS = 4
POSITIONS = 128
IGNORED = -100


def spec(**changes: Any) -> TrainSpec:
    """A document with the changes merged into it, mapping by mapping; names as in YAML."""
    document: dict[str, Any] = {
        "model": {"initialization": "Scratch", "config": {"model_type": "llama"}, "tokenizer": {"train": {}}},
        "data": {"train": [{"source": "file:///nowhere"}]},
        "training": {
            "maxSteps": 4,
            "batchSize": 8,
            "microBatchSize": 2,
            "optimizer": {"learningRate": 1e-2, "weightDecay": 0.1},
            "schedule": {"type": "Linear", "warmupSteps": 2},
        },
        "checkpoint": {"storage": "file:///nowhere"},
    }
    return TrainSpec.model_validate(merge(document, changes))


def llama(seed: int = 0) -> Any:
    """A Llama with grouped heads and untied embeddings."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=POSITIONS,
        )
    )  # fmt: skip


def llama_with_added_tokens(tied: bool = True, known: int = VOCABULARY - 3) -> Any:
    """A Llama that knows fewer tokens than its tokenizer, and got embeddings for the others."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=known, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=POSITIONS, tie_word_embeddings=tied,
        )
    )  # fmt: skip
    grow_embeddings(model, tokenizer())
    return model


def untied_llama_with_added_tokens() -> Any:
    """The same with a head of its own."""
    return llama_with_added_tokens(tied=False)


def gpt2(seed: int = 0) -> Any:
    """A GPT-2 without dropout: biases, Conv1D layers and tied embeddings."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=POSITIONS, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def bert(seed: int = 0) -> Any:
    """A classifier without dropout, whose head and pooler are new."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=POSITIONS, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=LABELS,
        )
    )  # fmt: skip


def resnet() -> Any:
    """Convolutions only, but for the head."""
    return ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))


def tokenizer() -> Any:
    """Words w0 to w63, split at blanks."""
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0", pad_token="w0")


def rows(count: int, length: int = 16, seed: int = 1) -> dict[str, torch.Tensor]:
    """A batch of rows with unequally many labels, padded at the right."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, VOCABULARY, (count, length), generator=generator)
    mask = torch.ones_like(tokens)
    for row in range(count):
        mask[row, length - row * 5 % (length - 4) :] = 0 if row * 5 % (length - 4) else 1
    labels = tokens.masked_fill(mask == 0, IGNORED)
    labels[:, 1] = IGNORED
    return {"input_ids": tokens * mask, "attention_mask": mask, "labels": labels}


def labelled(count: int, length: int = 16, seed: int = 1) -> dict[str, torch.Tensor]:
    """The same rows with a label each, which is their first token's."""
    batch = rows(count, length, seed)
    return batch | {"labels": (batch["input_ids"][:, :1] % LABELS).float()}


def batch(arguments: dict[str, torch.Tensor]) -> Batch:
    """A batch of these arguments of the model, of which the labels are the target."""
    inputs = {name: tensor for name, tensor in arguments.items() if name != "labels"}
    return Batch(inputs, {"labels": arguments["labels"]})


def model_arguments(batch: Batch) -> dict[str, torch.Tensor]:
    """The arguments with which transformers' model computes the loss of the batch itself."""
    return batch.inputs | {"labels": batch.targets["labels"]}


def micro(batch: Batch, objective: Objective) -> MicroBatch:
    """The batch as the loader hands it to the loop."""
    tokens = int(batch.inputs["attention_mask"].sum())
    return MicroBatch(batch, objective.collator.count_terms(batch), tokens, batch.inputs["input_ids"].numel())


def part(batch: dict[str, torch.Tensor], begin: int, end: int) -> dict[str, torch.Tensor]:
    """Rows `begin` to `end` of the batch."""
    return {name: tensor[begin:end] for name, tensor in batch.items()}
