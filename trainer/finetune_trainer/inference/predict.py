"""A quick try of an exported model.

    python -m finetune_trainer.inference.predict MODEL --input "a text" --input photo.png

prints a line for each input: what the model's pipeline makes of it, or `unpiped` where transformers has none. An input is a
text, an image, or JSON: `{"text": …, "text_pair": …}`, `{"question": …, "context": …}` or the messages of a chat; or a file
or - (standard input) with one of these a line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from finetune_trainer.inference import pipelines
from finetune_trainer.inference.pipelines import short, validate_length
from finetune_trainer.protocol.outcome import ConfigurationError, TrainerError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.download import localize

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
GENERATION = "text-generation"
MISTAKE = 2  # the exit code for what the user has to correct, as argparse has it
MOST_SHOWN = 5  # labels of a text, words for a mask
# How a class of transformers ends whose model serves a task, for folders without a model card.
TASKS = {
    "ForCausalLM": "text-generation", "LMHeadModel": "text-generation", "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification", "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification", "ForConditionalGeneration": "text2text-generation",
    "ForQuestionAnswering": "question-answering", "Model": "feature-extraction",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer each input; the exit code."""
    given = _parse(arguments)
    try:
        folder = localize(
            given.model if "://" in given.model else f"file://{given.model}", cache=given.cache_dir, credentials=Credentials(),
            secret=None, field="MODEL",
        )  # fmt: skip
        ask = _asked(folder, given.task or _task(folder), given)
        for one in _inputs(given.input or ["-"]):
            answer = ask(one)
            line = json.dumps({"input": one, "output": answer}, ensure_ascii=False, default=_plain) if given.json else None
            print(line or f"{short(one)}: {_readable(answer)}", flush=True)
    except TrainerError as error:
        print(error, file=sys.stderr)
        return MISTAKE
    return 0


def _inputs(words: Iterable[str]) -> Iterator[Any]:
    for word in words:
        path = Path(word)
        if word == "-":
            yield from _lines(sys.stdin)
        elif path.suffix.lower() in IMAGES:
            yield _existing(path)
        elif _is_file(path):
            with path.open(encoding="utf-8") as file:
                yield from _lines(file)
        else:
            yield from _lines([word])


def _is_file(path: Path) -> bool:
    with suppress(OSError, ValueError):  # a text may be longer than a name, or hold what no name may
        return path.is_file()
    return False


def _lines(lines: Iterable[str]) -> Iterator[Any]:
    for line in lines:
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        if text.lstrip()[0] in "{[":
            with suppress(ValueError):
                yield _unwrapped(json.loads(text))
                continue
        yield str(_existing(Path(text))) if Path(text).suffix.lower() in IMAGES else text


def _existing(path: Path) -> str:
    if not path.is_file():
        raise ConfigurationError(f"--input: {path} does not exist: correct the path or put it there")
    return str(path)


def _unwrapped(record: Any) -> Any:
    """What the pipeline wants of a row of data: the messages of a chat, or the text or image if there is nothing beside it."""
    if isinstance(record, dict):
        for key in ("messages", "image"):
            if key in record:
                return record[key]
        if "text" in record:
            pair = {key: record[key] for key in ("text", "text_pair") if record.get(key) is not None}
            return pair if "text_pair" in pair else record["text"]
    return record


def _task(folder: Path) -> str:
    """What the model is for, by its card or else by its class."""
    from huggingface_hub import ModelCard

    if (folder / "README.md").is_file():
        with suppress(ValueError):
            if task := ModelCard.load(folder / "README.md").data.to_dict().get("pipeline_tag"):
                return str(task)
    names = json.loads((folder / "config.json").read_text()).get("architectures") if (folder / "config.json").is_file() else []
    for end, task in TASKS.items():
        if any(name.endswith(end) for name in names or ()):
            return task
    raise ConfigurationError(f"MODEL: {folder} does not say what it is for: add --task, such as --task text-classification")


def _asked(folder: Path, task: str, given: argparse.Namespace) -> Callable[[Any], Any]:
    """Asks the model of the folder, or its adapter on the base that it names."""
    import transformers

    from finetune_trainer.huggingface.pretrained import max_positions

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    base, adapter = folder, folder / "adapter_config.json"
    if adapter.is_file():
        name = json.loads(adapter.read_text())["base_model_name_or_path"]
        uri = name if "://" in name else f"file://{name}" if Path(name).exists() else f"hf://{name}"
        base = localize(uri, cache=given.cache_dir, credentials=Credentials(), secret=None, field=f"{adapter}")
    elif not (folder / "config.json").is_file():
        models = ", ".join(sorted(str(file.parent) for file in folder.glob("*/config.json")))
        raise ConfigurationError(f"MODEL: {folder} holds no model: " + (f"name one of {models}" if models else "name another"))
    if task in pipelines.TASKS:
        return pipelines.TASKS[task](folder, base, given.max_new_tokens)
    ways = {"tokenizer": str(folder)} if adapter.is_file() else {}
    try:
        pipe = transformers.pipeline(task, model=str(base), **ways)
    except KeyError as error:
        raise ConfigurationError(f"--task: {str(error).strip(chr(34))[:300]}") from error
    if adapter.is_file():
        pipe.model.load_adapter(str(folder))
    return partial(_answer, pipe, max_positions(pipe.model), given.max_new_tokens)


def _answer(pipe: Any, positions: int | None, max_new_tokens: int, one: Any) -> Any:
    from finetune_trainer.huggingface.pretrained import count_tokens

    prepared = _prepared(one, pipe)
    if pipe.tokenizer is not None and positions is not None:
        length = count_tokens(prepared, pipe.tokenizer)
        validate_length(one, length, positions - (pipe.task == GENERATION))
        max_new_tokens = min(max_new_tokens, positions - length)
    return pipe(prepared, **_settings(pipe.task, max_new_tokens))


def _prepared(one: Any, pipe: Any) -> Any:
    mask = getattr(pipe.tokenizer, "mask_token", None) if pipe.task == "fill-mask" else None
    return one.replace("[MASK]", mask).replace("<mask>", mask) if mask and isinstance(one, str) else one


def _settings(task: str, max_new_tokens: int) -> dict[str, Any]:
    known: dict[str, dict[str, Any]] = {
        GENERATION: {"max_new_tokens": max_new_tokens, "do_sample": False, "return_full_text": False},
        "text-classification": {"top_k": None},
        "token-classification": {"aggregation_strategy": "simple"},
    }
    return known.get(task, {})


def _readable(answer: Any) -> str:
    """An answer on one line; long lists of numbers by their shape."""
    if isinstance(answer, list) and answer and all(isinstance(one, dict) for one in answer):
        return ", ".join(_entry(one) for one in answer[:MOST_SHOWN])
    if isinstance(answer, dict):
        return _entry(answer)
    shape, inner = [], answer
    while isinstance(inner, list) and inner:
        shape.append(str(len(inner)))
        inner = inner[0]
    return f"{' x '.join(shape)} numbers" if shape else str(answer)


def _entry(entry: dict[str, Any]) -> str:
    if "generated_text" in entry:
        text = entry["generated_text"]
        return str(text[-1]["content"] if isinstance(text, list) else text)
    word = next((entry[key] for key in ("entity_group", "label", "token_str", "answer") if key in entry), None)
    if word == "":
        word = "no answer"
    if word is None:
        return json.dumps(entry, ensure_ascii=False, default=_plain)
    what = f" {entry['word']!r}" if "word" in entry else ""
    return f"{word}{what} {entry['score']:.3f}" if "score" in entry else f"{word}{what}"


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer.inference.predict", description=__doc__)
    parser.add_argument("model", help="a folder, or its address")
    parser.add_argument("--input", action="append", metavar="TEXT|FILE|-")
    parser.add_argument("--task")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--cache-dir", type=Path, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
