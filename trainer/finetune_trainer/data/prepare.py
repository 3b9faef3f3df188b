"""Records become rows once: encoded by the objective, held out, packed and stored.

Every node prepares for itself and comes to the same rows in the same order; on one node all ranks and agents may ask at once,
one works under a lock and the others map its files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from finetune_trainer import config
from finetune_trainer.data.examples import Counts, Encoder, ExampleWriter, Fate, write_examples
from finetune_trainer.data.packing import pack
from finetune_trainer.data.reading import Reading, Source
from finetune_trainer.data.records import Record
from finetune_trainer.data.rows import Rows
from finetune_trainer.data.shared import appearing, exclusive
from finetune_trainer.outcome import DataError

# Part of the cache's key: a change of how rows are made must not find the rows of before.
LAYOUT = 3
TRAIN, EVALUATION = "train", "evaluation"
FACTS = "facts.json"
Sources = Mapping[str, Sequence[Source]]


@dataclass(frozen=True)
class DataReport:
    """What became of the documents of one side; counts, and shares between 0 and 1."""

    documents: int
    empty_documents: int
    split_documents: int
    truncated_documents: int
    dropped_documents: int
    masked_documents: int
    """Of which nothing is left that is to be learnt, such as conversations cut off before the assistant speaks."""
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


def prepare(spec: config.TrainSpec, encoder: Encoder, reading: Reading, alive: Callable[[], None] = lambda: None) -> Prepared:
    """The rows of the document's data, from the cache if they were prepared before; what a survey finds is told to `encoder`.

    `alive` is called now and then, also while another process works. Raises DataError for a file or row that cannot be used
    and when nothing is left to learn from.
    """
    sources = reading.sources(spec.data)
    folder = reading.cache / "prepared" / _key(spec, encoder, sources)
    with exclusive(folder, alive):
        if not folder.exists():
            with appearing(folder) as temporary:
                _build(spec, encoder, sources, temporary, alive)
    encoder.informed(json.loads((folder / FACTS).read_text()))
    return _load(folder)


def is_held_out(record: Record, fraction: float) -> bool:
    """Whether a record is for evaluation: by its subject alone, so that the same one is never on both sides."""
    value = record.subject
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _key(spec: config.TrainSpec, encoder: Encoder, sources: Sources) -> str:
    identity = {
        "layout": LAYOUT,
        "encoder": encoder.identity,
        "sources": {side: [source.identity for source in found] for side, found in sources.items()},
        "fraction": spec.data.evaluation_fraction,
        "packing": [spec.packing, spec.data.max_length],
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _build(spec: config.TrainSpec, encoder: Encoder, sources: Sources, folder: Path, alive: Callable[[], None]) -> None:
    data = spec.data
    writers = {side: ExampleWriter(folder / f"{side}.examples", encoder.fields) for side in (TRAIN, EVALUATION)}
    fraction = data.evaluation_fraction or 0.0

    def side_of(record: Record) -> str:
        return EVALUATION if fraction and is_held_out(record, fraction) else TRAIN

    facts = encoder.survey(lambda: (record for record in _records(sources[TRAIN]) if side_of(record) == TRAIN))
    encoder.informed(facts)
    (folder / FACTS).write_text(json.dumps(facts))
    write_examples(_records(sources[TRAIN]), encoder, lambda record: writers[side_of(record)], alive)
    write_examples(_records(sources[EVALUATION]), encoder, lambda _: writers[EVALUATION], alive)
    for writer in writers.values():
        writer.close()
    _insist_on_examples(data, writers[TRAIN].counts, writers[EVALUATION].counts)
    for side, writer in writers.items():
        if writer.counts.examples:
            _finish(writer, folder / f"{side}.arrow", spec)
            (folder / f"{side}.json").write_text(json.dumps(asdict(_report(writer.counts, Rows(folder / f"{side}.arrow")))))
        writer.path.unlink(missing_ok=True)
        alive()


def _records(sources: Sequence[Source]) -> Iterator[Record]:
    return chain.from_iterable(source.records() for source in sources)


def _finish(writer: ExampleWriter, rows: Path, spec: config.TrainSpec) -> None:
    if spec.packing:
        pack(writer.path, rows, spec.data.max_length)
    else:
        writer.path.rename(rows)


def _insist_on_examples(spec: config.Data, train: Counts, evaluation: Counts) -> None:
    if not train.examples:
        raise DataError(
            f"spec.data.train: nothing is left to learn from ({_losses(train, spec)}): add data, or change overlong"
        )
    if spec.evaluation and not evaluation.examples:
        raise DataError(f"spec.data.evaluation: nothing is left to evaluate on ({_losses(evaluation, spec)}): add data")
    if spec.evaluation_fraction and not evaluation.examples:
        raise DataError(
            f"spec.data.evaluationFraction: {spec.evaluation_fraction:g} of {train.records} documents held out none that "
            "could be used: raise it, or give data.evaluation"
        )


def _losses(counts: Counts, spec: config.Data) -> str:
    fates = counts.fates
    masked = f"; {fates[Fate.MASKED]} have nothing to learn within that length" if fates[Fate.MASKED] else ""
    return (
        f"of {counts.records} documents {fates[Fate.EMPTY]} are empty and {fates[Fate.DROPPED]} longer than maxLength "
        f"{spec.max_length}{masked}"
    )


def _report(counts: Counts, rows: Rows) -> DataReport:
    fates = counts.fates
    return DataReport(
        documents=counts.records,
        empty_documents=fates[Fate.EMPTY],
        split_documents=fates[Fate.SPLIT],
        truncated_documents=fates[Fate.TRUNCATED],
        dropped_documents=fates[Fate.DROPPED],
        masked_documents=fates[Fate.MASKED],
        rows=len(rows),
        tokens=counts.tokens,
        longest_row=rows.longest,
        padding_share=1 - counts.tokens / (len(rows) * rows.longest) if rows.longest else 0.0,
        digest=rows.digest(),
    )


def _load(folder: Path) -> Prepared:
    rows = {side: Rows(file) for side in (TRAIN, EVALUATION) if (file := folder / f"{side}.arrow").exists()}
    reports = {side: DataReport(**json.loads((folder / f"{side}.json").read_text())) for side in rows}
    return Prepared(rows[TRAIN], rows.get(EVALUATION), reports[TRAIN], reports.get(EVALUATION))
