"""Compressed files: gzip, bzip2, xz and Zstandard, found by the suffix of the name and confirmed by the first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, NamedTuple, cast

import pyarrow

from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.names import COMPRESSION_SUFFIXES, compression_suffix
from finetune_trainer.huggingface.damaged_files import LFS_POINTER, LFS_PROBLEM
from finetune_trainer.protocol.outcome import DataError, first_line


class _Signature(NamedTuple):
    compression: str
    start: bytes


_SIGNATURES = (
    _Signature("gzip", b"\x1f\x8b\x08"),
    _Signature("bzip2", b"BZh"),
    _Signature("xz", b"\xfd7zXZ\x00"),
    _Signature("Zstandard", b"\x28\xb5\x2f\xfd"),
)
_LONG_WINDOW = "Frame requires too much memory"  # Zstandard's own words
_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")  # the first block, or the end of an empty stream


def compression_of(file: File) -> str | None:
    """The compression of the file; None for a file that is not compressed.

    Raises DataError if the name says something else than the content, or if the file cannot be read.
    """
    suffix = compression_suffix(file.name)
    named = COMPRESSION_SUFFIXES[suffix] if suffix else None
    with _explain_errors(file), file.path.open("rb") as stream:
        start = stream.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise DataError(f"{file.name}: {LFS_PROBLEM}")
    found = _compression_by_content(start)
    if named == found:
        return named
    if not start:
        return None
    if found is None:
        raise DataError(f"{file.name}: the file is not compressed with {named} as its name says: remove {suffix} from the name")
    [wanted, *_] = [suffix for suffix, compression in COMPRESSION_SUFFIXES.items() if compression == found]
    raise DataError(f"{file.name}: the file is compressed with {found}, unlike its name: let the name end with {wanted}")


@contextmanager
def open_bytes(file: File) -> Iterator[BinaryIO]:
    """The decompressed content as a stream; an error while reading is raised as DataError."""
    compression = compression_of(file)
    with _explain_errors(file), _open(file, compression) as stream:
        yield stream


@contextmanager
def open_seekable(file: File) -> Iterator[IO[bytes] | str]:
    """The path of an uncompressed file, or the decompressed content in a temporary file."""
    if compression_of(file) is None:
        yield str(file.path)
        return
    with tempfile.TemporaryFile() as copy:
        with open_bytes(file) as stream:
            shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy


def _compression_by_content(start: bytes) -> str | None:
    for compression, signature in _SIGNATURES:
        if start.startswith(signature) and (compression != "bzip2" or start[4:10] in _BZIP2_BLOCKS):
            return compression
    return None


def _open(file: File, compression: str | None) -> BinaryIO:
    match compression:
        case "gzip":
            return cast(BinaryIO, gzip.open(file.path))
        case "bzip2":
            return cast(BinaryIO, bz2.open(file.path))
        case "xz":
            return cast(BinaryIO, lzma.open(file.path))
        case "Zstandard":
            # A Python file, so that errors of the operating system keep their numbers.
            return cast(
                BinaryIO, io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file.path.open("rb")), "zstd"))
            )
    return file.path.open("rb")


@contextmanager
def _explain_errors(file: File) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(file, error) from error
    except OSError as error:
        if _LONG_WINDOW in str(error):
            raise DataError(
                f"{file.name}: the file was compressed with a window of more than 128 MiB: compress it again without --long"
            ) from error
        if error.errno is None:  # the decompressors of bzip2 and Zstandard have no error class of their own
            raise _damaged(file, error) from error
        raise DataError(f"{file.name}: the file cannot be read ({error.strerror}): correct its mode or owner") from error


def _damaged(file: File, error: Exception) -> DataError:
    return DataError(f"{file.name}: the compressed file is damaged ({first_line(error)}): copy it again")
