"""What can be refused before it costs time: storage that cannot be written, data that cannot be read.

    python -m finetune_trainer.training.preflight train.json --cache-dir DIRECTORY

prints the first thing that is wrong and exits with its code (`outcome.VERDICTS`). Imports no torch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.records.images import validate_image
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.protocol.outcome import EXIT_POLICIES, TrainerError
from finetune_trainer.storage.base import Credentials, Storage


def model_storage(spec: TrainSpec, credentials: Credentials) -> Storage:
    """Where the model goes: export.storage, or beside the checkpoints."""
    export, checkpoint = spec.export, spec.checkpoint
    secret = export.credentials or checkpoint.credentials
    if export.storage is not None:
        return Storage.open(export.storage, credentials, secret, field="spec.export.storage")
    return Storage.open(checkpoint.storage, credentials, secret).child("model")


def checkpoint_storage(spec: TrainSpec, credentials: Credentials) -> Storage:
    """Where checkpoints go."""
    return Storage.open(spec.checkpoint.storage, credentials, spec.checkpoint.credentials)


def validate_storage(spec: TrainSpec, credentials: Credentials) -> None:
    """Both places must be writable; raises ConfigurationError or StorageError."""
    checkpoint_storage(spec, credentials).probe_writable()
    model_storage(spec, credentials).probe_writable()


def validate_data(spec: TrainSpec, credentials: Credentials, cache: Path) -> int:
    """How many rows the data holds; raises DataError for the first file or row that cannot be used."""
    reading = SourceResolver(spec.objective, cache, credentials)
    sides = [*reading.sources(spec.data).values(), reading.replay(spec.data)]
    count = 0
    for record in (record for side in sides for source in side for record in source.rows()):
        if "image" in record.values:
            validate_image(record)
        count += 1
    return count


def main() -> int:
    """Try one document on this machine."""
    parser = argparse.ArgumentParser(description="Try whether a run could read its data and write its results.")
    parser.add_argument("document", type=Path)
    parser.add_argument("--cache-dir", type=Path, required=True)
    parser.add_argument("--credentials-dir", type=Path)
    given = parser.parse_args()
    spec = TrainSpec.model_validate_json(given.document.read_text())
    credentials = Credentials(given.credentials_dir)
    try:
        validate_storage(spec, credentials)
        print(f"{validate_data(spec, credentials, given.cache_dir)} rows can be read, results can be written")
    except TrainerError as error:
        print(error)
        return EXIT_POLICIES[error.reason].exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
