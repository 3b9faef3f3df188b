"""Several documents in one row, by TRL's best-fit-decreasing packing (Ding et al. 2024, arXiv:2404.10830)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from finetune_trainer.data.rows import LENGTHS, TOKENS

# Pieces are packed in groups, which bounds memory: of these many tokens, and never so few pieces that gaps stay open.
GROUP_TOKENS = 2**25
GROUP_PIECES = (1000, 100_000)


def pack(pieces: Path, rows: Path, max_length: int) -> None:
    """Fill rows of at most `max_length` tokens with the pieces of an Arrow stream file; each piece stays whole.

    Writes an Arrow stream file with the tokens of each row and the lengths of the documents in it, the same for the same
    pieces on every machine.
    """
    import datasets
    from trl.data_utils import pack_dataset

    least, most = GROUP_PIECES
    loaded = datasets.Dataset.from_file(str(pieces))
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory(dir=rows.parent) as folder:
            written = Path(folder) / "rows.arrow"
            packed = pack_dataset(
                loaded,
                seq_length=max_length,
                strategy="bfd",
                map_kwargs={
                    "batch_size": min(max(GROUP_TOKENS // max_length, least), most),
                    "cache_file_name": str(written),
                    # The file is ours alone, so the library need not hash what goes into it.
                    "new_fingerprint": "packed",
                },
            )
            assert set(packed.column_names) == {TOKENS, LENGTHS}
            del packed
            written.replace(rows)
    finally:
        if not shown:
            datasets.enable_progress_bars()
