"""Documents become rows once: tokenised, cut, held out, packed and stored.

Every node prepares for itself and comes to the same rows in the same order; on one node all ranks and agents may ask at once,
one works under a lock and the others map its files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from finetune_trainer import config
from finetune_trainer.data.documents import Document, Source, resolve_all
from finetune_trainer.data.packing import pack
from finetune_trainer.data.pieces import Counts, PieceWriter, write_pieces
from finetune_trainer.data.rows import Rows
from finetune_trainer.data.shared import appearing, exclusive
from finetune_trainer.outcome import ConfigurationError, DataError
from finetune_trainer.storage import Credentials

# Part of the cache's key: a change of how rows are made must not find the rows of before.
LAYOUT = 1
TRAIN, EVALUATION = "train", "evaluation"


@dataclass(frozen=True)
class DataReport:
    """What became of the documents of one side; counts, and shares between 0 and 1."""

    documents: int
    empty_documents: int
    split_documents: int
    truncated_documents: int
    dropped_documents: int
    rows: int
    tokens: int
    longest_row: int
    padding_share: float
    """What would be padding if all rows were filled to the longest; packing is there to bring it near zero."""
    digest: str
    """SHA-256 of the rows: the same on every node, or they would not learn from the same data."""


@dataclass(frozen=True)
class Prepared:
    """Rows to learn from and rows to evaluate on."""

    train: Rows
    evaluation: Rows | None
    report: DataReport
    evaluation_report: DataReport | None


def prepare(
    spec: config.Data,
    tokenizer: PreTrainedTokenizerBase,
    *,
    cache: Path,
    credentials: Credentials,
    alive: Callable[[], None] = lambda: None,
) -> Prepared:
    """The rows of the document's data, from the cache if they were prepared before.

    `alive` is called now and then, also while another process works. Raises DataError for a file or row that cannot be used
    and when nothing is left to learn from, ConfigurationError for a tokenizer without an end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(
            "spec.model.tokenizer: it has no end-of-text token, so the model could not learn to stop: set eos_token in its "
            "tokenizer_config.json, or use another tokenizer"
        )
    train = resolve_all(spec.train, field="spec.data.train", cache=cache, credentials=credentials, default_split="train")
    evaluation = resolve_all(
        spec.evaluation, field="spec.data.evaluation", cache=cache, credentials=credentials, default_split="validation"
    )
    key = _key(spec, tokenizer, train, evaluation)
    folder = cache / "prepared" / key
    with exclusive(folder, alive):
        if not folder.exists():
            with appearing(folder) as temporary:
                _build(spec, tokenizer, train, evaluation, temporary, alive)
    return _load(folder)


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """What changes when the tokens of a text may."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend else json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    return hashlib.sha256(f"{rules}{tokenizer.eos_token_id}".encode()).hexdigest()


def is_held_out(document: Document, fraction: float) -> bool:
    """Whether a document is for evaluation: by its text alone, so that the same text is never on both sides."""
    digest = hashlib.blake2b(document.text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _key(spec: config.Data, tokenizer: PreTrainedTokenizerBase, train: Sequence[Source], evaluation: Sequence[Source]) -> str:
    identity = {
        "layout": LAYOUT,
        "tokenizer": fingerprint(tokenizer),
        "train": [source.identity for source in train],
        "evaluation": [source.identity for source in evaluation],
        "fraction": spec.evaluation_fraction,
        "length": [spec.max_length, spec.packing, spec.overlong],
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _build(
    spec: config.Data,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Source],
    evaluation: Sequence[Source],
    folder: Path,
    alive: Callable[[], None],
) -> None:
    writers = {side: PieceWriter(folder / f"{side}.pieces") for side in (TRAIN, EVALUATION)}
    fraction = spec.evaluation_fraction or 0.0

    def hold_out(document: Document) -> PieceWriter:
        return writers[EVALUATION if fraction and is_held_out(document, fraction) else TRAIN]

    for sources, choose in ((train, hold_out), (evaluation, lambda _: writers[EVALUATION])):
        documents = chain.from_iterable(source.documents() for source in sources)
        write_pieces(
            documents, tokenizer, choose, max_length=spec.max_length, overlong=spec.overlong, alive=alive
        )  # fmt: skip
    for writer in writers.values():
        writer.close()
    _insist_on_pieces(spec, writers[TRAIN].counts, writers[EVALUATION].counts)
    for side, writer in writers.items():
        if writer.counts.pieces:
            _finish(writer, folder / f"{side}.arrow", spec)
            (folder / f"{side}.json").write_text(json.dumps(asdict(_report(writer.counts, Rows(folder / f"{side}.arrow")))))
        writer.path.unlink(missing_ok=True)
        alive()


def _finish(writer: PieceWriter, rows: Path, spec: config.Data) -> None:
    if spec.packing:
        pack(writer.path, rows, spec.max_length)
    else:
        writer.path.rename(rows)


def _insist_on_pieces(spec: config.Data, train: Counts, evaluation: Counts) -> None:
    if not train.pieces:
        raise DataError(
            f"spec.data.train: nothing is left to learn from ({_losses(train, spec)}): add data, or change overlong"
        )
    if spec.evaluation and not evaluation.pieces:
        raise DataError(f"spec.data.evaluation: nothing is left to evaluate on ({_losses(evaluation, spec)}): add data")
    if spec.evaluation_fraction and not evaluation.pieces:
        raise DataError(
            f"spec.data.evaluationFraction: {spec.evaluation_fraction:g} of {train.documents} documents held out none that "
            "could be used: raise it, or give data.evaluation"
        )


def _losses(counts: Counts, spec: config.Data) -> str:
    return (
        f"of {counts.documents} documents {counts.empty} are empty and {counts.dropped} longer than maxLength {spec.max_length}"
    )


def _report(counts: Counts, rows: Rows) -> DataReport:
    return DataReport(
        documents=counts.documents,
        empty_documents=counts.empty,
        split_documents=counts.split,
        truncated_documents=counts.truncated,
        dropped_documents=counts.dropped,
        rows=len(rows),
        tokens=counts.tokens,
        longest_row=rows.longest,
        padding_share=1 - counts.tokens / (len(rows) * rows.longest),
        digest=rows.digest(),
    )


def _load(folder: Path) -> Prepared:
    rows = {side: Rows(file) for side in (TRAIN, EVALUATION) if (file := folder / f"{side}.arrow").exists()}
    reports = {side: DataReport(**json.loads((folder / f"{side}.json").read_text())) for side in rows}
    return Prepared(rows[TRAIN], rows.get(EVALUATION), reports[TRAIN], reports.get(EVALUATION))
