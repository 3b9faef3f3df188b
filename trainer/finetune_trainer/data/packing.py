"""Several documents in one row, by TRL's best-fit-decreasing packing (Ding et al. 2024, arXiv:2404.10830)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from finetune_trainer.data.rows import LENGTHS

# Examples are packed in groups, which bounds memory: of these many tokens, and never so few examples that gaps stay open.
GROUP_TOKENS = 2**25
GROUP_EXAMPLES = (1000, 100_000)


def pack(examples: Path, rows: Path, max_length: int) -> None:
    """Fill rows of at most `max_length` tokens with the examples of an Arrow stream file; each example stays whole.

    Every field of an example must be a list as long as its tokens. Writes an Arrow stream file with the fields of each row and
    the lengths of the examples in it, the same for the same examples on every machine.
    """
    import datasets
    from trl.data_utils import pack_dataset

    least, most = GROUP_EXAMPLES
    loaded = datasets.Dataset.from_file(str(examples))
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
            assert LENGTHS in packed.column_names
            del packed
            written.replace(rows)
    finally:
        if not shown:
            datasets.enable_progress_bars()
