"""Predicts with an exported model.

    python -m finetune_trainer.inference.predict MODEL --input "a text" --input photo.png

prints one line for each input: the answer of the model's transformers pipeline, or of `inference.pipelines` for tasks that
transformers has no pipeline for. An input is a text, an image, or JSON: `{"text": …, "text_pair": …}`,
`{"question": …, "context": …}` or the messages of a chat. It can also be a file, or - for standard input, with one input a
line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_trainer.config.storage_schemes import FILE
from finetune_trainer.inference.formatting import format_answer, shorten, to_json_value
from finetune_trainer.inference.inputs import read_inputs
from finetune_trainer.inference.predictor import load_predictor
from finetune_trainer.inference.task import choose_task
from finetune_trainer.protocol.outcome import TrainerError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.download import localize

USAGE_ERROR = 2  # argparse's exit code for errors that the user has to correct


def main(argv: Sequence[str] | None = None) -> int:
    """Print the answer to each input and return the exit code."""
    arguments = _parse_arguments(argv)
    try:
        uri = arguments.model if "://" in arguments.model else f"{FILE.prefix}{arguments.model}"
        folder = localize(uri, cache=arguments.cache_dir, credentials=Credentials(), secret=None, field="MODEL")
        task = arguments.task or choose_task(folder)
        predict = load_predictor(folder, task, arguments.cache_dir, arguments.max_new_tokens)
        for value in read_inputs(arguments.input or ["-"]):
            answer = predict(value)
            if arguments.json:
                line = json.dumps({"input": value, "output": answer}, ensure_ascii=False, default=to_json_value)
            else:
                line = f"{shorten(value)}: {format_answer(answer)}"
            print(line, flush=True)
    except TrainerError as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR
    return 0


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer.inference.predict", description=__doc__)
    parser.add_argument("model", help="a folder, or its URI")
    parser.add_argument("--input", action="append", metavar="TEXT|FILE|-")
    parser.add_argument("--task")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--cache-dir", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
