"""From documents to pieces of at most maxLength tokens, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow
from transformers import PreTrainedTokenizerBase

from finetune_trainer.data.formats import Document
from finetune_trainer.data.rows import TOKENS, Tokens

Overlong = Literal["Split", "Truncate", "Drop"]

# A batch ends at either limit: enough for the tokenizer to use all cores, and little enough to hold in memory.
BATCH_DOCUMENTS = 1000
BATCH_CHARACTERS = 2_000_000


@dataclass
class Counts:
    """What became of the documents."""

    documents: int = 0
    empty: int = 0
    split: int = 0
    truncated: int = 0
    dropped: int = 0
    pieces: int = 0
    tokens: int = 0


def cut(tokens: Tokens, max_length: int, overlong: Overlong, counts: Counts) -> list[Tokens]:
    """The pieces of one document [any length], each of at most `max_length` tokens and at least 2.

    The pieces of a split document overlap by one token: a piece's first token is not predicted within it, and so every token
    of the document but the first is predicted exactly once.
    """
    if len(tokens) < 2:
        counts.empty += 1
        return []
    if len(tokens) <= max_length:
        return [tokens]
    match overlong:
        case "Drop":
            counts.dropped += 1
            return []
        case "Truncate":
            counts.truncated += 1
            return [tokens[:max_length]]
        case "Split":
            counts.split += 1
            return [tokens[start : start + max_length] for start in range(0, len(tokens) - 1, max_length - 1)]


def tokenize(documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[tuple[Document, Tokens]]]:
    """Batches of documents with their tokens: those the tokenizer begins a text with, the text, and one EOS.

    A fast tokenizer works on the texts of a batch in parallel. A document without text has no tokens.
    """
    for batch in _batches(documents):
        encoded: Sequence[Sequence[int]] = tokenizer(
            [document.text for document in batch], return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]
        yield [
            (document, _ended(ids, tokenizer.eos_token_id) if document.text else np.empty(0, np.int32))
            for document, ids in zip(batch, encoded, strict=True)
        ]


def _ended(ids: Sequence[int], eos: int) -> Tokens:
    return np.array(ids if ids and ids[-1] == eos else [*ids, eos], dtype=np.int32)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class PieceWriter:
    """Writes pieces to an Arrow stream file, so that memory holds one batch and never the whole data."""

    _schema = pyarrow.schema([(TOKENS, pyarrow.list_(pyarrow.int32()))])

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts = Counts()
        self._sink = pyarrow.OSFile(str(path), "wb")
        self._writer = pyarrow.ipc.new_stream(self._sink, self._schema)

    def write(self, pieces: list[Tokens]) -> None:
        """Append the pieces, in order."""
        if not pieces:
            return
        offsets = np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int32)
        column = pyarrow.ListArray.from_arrays(offsets, np.concatenate(pieces))
        self._writer.write_batch(pyarrow.record_batch([column], schema=self._schema))
        self.counts.pieces += len(pieces)
        self.counts.tokens += int(offsets[-1])

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        self._sink.close()


def write_pieces(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    choose: Callable[[Document], PieceWriter],
    *,
    max_length: int,
    overlong: Overlong,
    alive: Callable[[], None],
) -> None:
    """Tokenise, cut and write all documents, each to the writer that `choose` names; `alive` is called after each batch."""
    for batch in tokenize(documents, tokenizer):
        chosen: dict[PieceWriter, list[Tokens]] = {}
        for document, tokens in batch:
            writer = choose(document)
            writer.counts.documents += 1
            chosen.setdefault(writer, []).extend(cut(tokens, max_length, overlong, writer.counts))
        for writer, pieces in chosen.items():
            writer.write(pieces)
        alive()
