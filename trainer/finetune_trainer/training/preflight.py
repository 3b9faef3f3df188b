"""Checks a document before a run: whether its storage can be written, and its model's files and its data can be read.

    python -m finetune_trainer.training.preflight train.json --cache-dir DIRECTORY

prints the first error and exits with its code (`protocol.outcome.EXIT_POLICIES`). Imports no torch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.storage_schemes import FILE
from finetune_trainer.data.records.images import validate_image
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models.source import fetch_model_folder
from finetune_trainer.protocol.outcome import EXIT_POLICIES, TrainerError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training.output_storage import validate_writable


def validate_model(spec: TrainSpec, credentials: Credentials, cache: Path) -> None:
    """Raise ConfigurationError for a model on this machine that has damaged files or is none; others are not downloaded."""
    if FILE.matches(spec.model.source):
        fetch_model_folder(spec.model, cache=cache, credentials=credentials)


def validate_data(spec: TrainSpec, credentials: Credentials, cache: Path) -> int:
    """Read all data and return the number of rows; raises DataError for the first file or row that cannot be used."""
    resolver = SourceResolver(spec.objective, cache, credentials)
    count = 0
    for sources in resolver.sources(spec.data).values():
        for source in sources:
            for row in source.rows():
                if "image" in row.values:
                    validate_image(row)
                count += 1
    return count


def main() -> int:
    """Check one document on this machine and return the exit code."""
    parser = argparse.ArgumentParser(description="Check whether a run could read its data and write its results.")
    parser.add_argument("document", type=Path)
    parser.add_argument("--cache-dir", type=Path, required=True)
    parser.add_argument("--credentials-dir", type=Path)
    arguments = parser.parse_args()
    spec = TrainSpec.model_validate_json(arguments.document.read_text())
    credentials = Credentials(arguments.credentials_dir)
    try:
        validate_writable(spec.export, spec.checkpoint, credentials)
        validate_model(spec, credentials, arguments.cache_dir)
        rows = validate_data(spec, credentials, arguments.cache_dir)
    except TrainerError as error:
        print(error)
        return EXIT_POLICIES[error.reason].exit_code
    print(f"{rows} rows can be read, results can be written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
