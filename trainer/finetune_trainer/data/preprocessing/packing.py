"""Several documents in one row, by TRL's best-fit-decreasing packing (Ding et al. 2024, arXiv:2404.10830)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import pyarrow

from finetune_trainer.data.loading.dataset import LENGTHS

# Examples are packed in groups, which bounds memory: of these many tokens, and never so few examples that gaps stay open.
GROUP_TOKENS = 2**25
GROUP_EXAMPLES = (1000, 100_000)


def pack(examples: Path, rows: Path, max_length: int, sizes: Sequence[int]) -> list[int]:
    """Fill rows of at most `max_length` tokens with the examples of an Arrow stream file; each example stays whole.

    Every field of an example must be a list as long as its tokens. Only examples of one group share a row; `sizes` are the
    examples of each, one group after the other. Writes an Arrow stream file with the fields of each row and the lengths of the
    examples in it, the same for the same examples on every machine; returns the number of rows of each group.
    """
    import datasets
    from trl.data_utils import pack_dataset

    least, most = GROUP_EXAMPLES
    loaded = datasets.Dataset.from_file(str(examples))
    ends = list(accumulate(sizes))
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory(dir=rows.parent) as folder:
            parts = [Path(folder) / f"{number}.arrow" for number in range(len(sizes))]
            found = []
            for part, end, size in zip(parts, ends, sizes, strict=True):
                packed = pack_dataset(
                    loaded.select(range(end - size, end)),
                    seq_length=max_length,
                    strategy="bfd",
                    map_kwargs={
                        "batch_size": min(max(GROUP_TOKENS // max_length, least), most),
                        "cache_file_name": str(part),
                        # The file is ours alone, so the library need not hash what goes into it.
                        "new_fingerprint": part.stem,
                    },
                )
                assert LENGTHS in packed.column_names
                found.append(len(packed))
                del packed
            _join(parts, rows)
            return found
    finally:
        if not shown:
            datasets.enable_progress_bars()


def _join(parts: Sequence[Path], whole: Path) -> None:
    """One Arrow stream file of several with the same fields."""
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
        assert writer is not None, "there is always a group"
        writer.close()
