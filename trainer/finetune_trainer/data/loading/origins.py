"""Where the samples of prepared data come from: file and line of each example, kept beside the samples for messages.

Packing moves examples, so an example of a packed sequence is found by its digest. The file is compressed and is read only when
something is wrong with a step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample, document_lengths

_SCHEMA = pyarrow.schema([("digest", pyarrow.string()), ("origin", pyarrow.string())])


def example_digest(tokens: Any) -> str:
    """The digest of an example's tokens [n]; two examples with the same tokens have the same."""
    return hashlib.blake2b(np.asarray(tokens, np.int32).tobytes(), digest_size=8).hexdigest()


def document_digests(sample: Sample) -> list[str]:
    """The digest of each document of a sample with tokens."""
    if LENGTHS not in sample:
        return [example_digest(sample[TOKENS])]
    ends = np.cumsum(document_lengths(sample))[:-1]
    return [example_digest(tokens) for tokens in np.split(sample[TOKENS], ends)]


class OriginWriter:
    """Writes the digests and origins of examples to an Arrow stream file; memory holds one batch at a time."""

    def __init__(self, path: Path) -> None:
        self._sink = pyarrow.OSFile(str(path), "wb")
        options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pyarrow.ipc.new_stream(self._sink, _SCHEMA, options=options)

    def write(self, digests: Sequence[str], origins: Sequence[str]) -> None:
        """Append one row for each example."""
        self._writer.write_batch(pyarrow.record_batch([pyarrow.array(digests), pyarrow.array(origins)], schema=_SCHEMA))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        self._sink.close()


class Origins:
    """The origins of samples that are the concatenation of some splits, each with a file of its own."""

    def __init__(self, samples: Sequence[Sample], files: Sequence[Path]) -> None:
        """`files` has those of the splits in the order of their samples."""
        self._samples = samples
        self._files = files

    def of(self, indices: Sequence[int]) -> list[str]:
        """The origin of each document of the samples with these indices, each once; equal documents have one origin."""
        keys: list[int | str] = list(indices)
        if indices and LENGTHS in self._samples[indices[0]]:
            keys = [digest for index in indices for digest in document_digests(self._samples[index])]
        wanted, found = set(keys), dict[int | str, str]()
        for number, (digest, origin) in enumerate(self._examples()):
            for key in (number, digest):
                if key in wanted:
                    found.setdefault(key, origin)
            if len(found) == len(wanted):
                break
        return list(dict.fromkeys(found[key] for key in keys if key in found))

    def _examples(self) -> Iterator[tuple[str, str]]:
        """Digest and origin of each example."""
        for path in self._files:
            with pyarrow.OSFile(str(path), "rb") as file, pyarrow.ipc.open_stream(file) as stream:
                for batch in stream:
                    yield from zip(batch["digest"].to_pylist(), batch["origin"].to_pylist(), strict=True)
