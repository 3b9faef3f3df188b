"""Packs several examples into a sequence with TRL's best-fit-decreasing packing (Ding et al. 2024, arXiv:2404.10830)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow

from finetune_trainer.data.loading.dataset import LENGTHS

# Examples are packed in batches of this many tokens, which bounds memory, and of enough examples to leave few gaps.
BATCH_TOKENS = 2**25
MIN_BATCH_EXAMPLES, MAX_BATCH_EXAMPLES = 1000, 100_000


def pack(examples: Path, sequences: Path, max_length: int, run_lengths: Sequence[int]) -> list[int]:
    """Pack the examples of an Arrow stream file into sequences of at most `max_length` tokens; each example stays whole.

    Every field of an example must be a list as long as its tokens. `run_lengths` are the lengths of the runs of examples that
    belong to one group; a sequence never mixes runs. Writes an Arrow stream file with the fields of the examples and the
    lengths of the examples in each sequence, equal on every machine. Returns the number of sequences of each run.
    """
    import datasets

    loaded = datasets.Dataset.from_file(str(examples))
    ends = accumulate(run_lengths)
    counts = []
    with _without_progress_bars(), tempfile.TemporaryDirectory(dir=sequences.parent) as folder:
        parts = [Path(folder) / f"{number}.arrow" for number in range(len(run_lengths))]
        for part, end, length in zip(parts, ends, run_lengths, strict=True):
            counts.append(_pack_run(loaded.select(range(end - length, end)), part, max_length))
        _concatenate(parts, sequences)
    return counts


def _pack_run(examples: Any, part: Path, max_length: int) -> int:
    """Pack examples into the file `part`; returns the number of sequences."""
    from trl.data_utils import pack_dataset

    packed = pack_dataset(
        examples,
        seq_length=max_length,
        strategy="bfd",
        map_kwargs={
            "batch_size": min(max(BATCH_TOKENS // max_length, MIN_BATCH_EXAMPLES), MAX_BATCH_EXAMPLES),
            "cache_file_name": str(part),
            # Given, so that the library does not hash the data for the name of its cache file.
            "new_fingerprint": part.stem,
        },
    )
    assert LENGTHS in packed.column_names, "TRL's best-fit packing adds the lengths of the documents"
    return len(packed)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    import datasets

    were_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            datasets.enable_progress_bars()


def _concatenate(parts: Sequence[Path], whole: Path) -> None:
    """Concatenate Arrow stream files with the same fields."""
    if len(parts) == 1:
        parts[0].replace(whole)
        return
    with pyarrow.OSFile(str(whole), "wb") as sink:
        writer = None
        for part in parts:
            with pyarrow.memory_map(str(part)) as file, pyarrow.ipc.open_stream(file) as stream:
                writer = writer or pyarrow.ipc.new_stream(sink, stream.schema)
                for batch in stream:
                    writer.write_batch(batch)
        assert writer is not None, "there is at least one group"
        writer.close()
