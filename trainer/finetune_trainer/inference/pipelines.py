"""What `predict` asks models by that transformers 5 has no pipeline for: encoder-decoders and question answering.

What the exported folder tells of its run says how: a prefix, beams, the length of a window and of an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_trainer.config import TrainSpec, explain
from finetune_trainer.config.objectives import field_of
from finetune_trainer.protocol.outcome import ConfigurationError

LONGEST = 512  # tokens of a window where neither the run nor the tokenizer says how many


def text_generator(folder: Path, base: Path, max_new_tokens: int) -> Callable[[Any], Any]:
    """Writes a text upon reading one; raises ConfigurationError for a model that does not."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from finetune_trainer.huggingface.pretrained import max_positions

    options = _told(folder, "document").get("objective", {}).get(field_of("Seq2Seq"), {})
    model, tokenizer = _loaded(AutoModelForSeq2SeqLM, folder, base)
    settings = {"num_beams": options["beams"]} if "beams" in options else {}
    positions = max_positions(model)

    def ask(one: Any) -> Any:
        if not isinstance(one, str):
            raise ConfigurationError(f'--input: {short(one)} is no text: give one, or JSON such as {{"text": "…"}}')
        read = tokenizer(options.get("prefix", "") + one, return_tensors="pt", return_token_type_ids=False).to(model.device)
        validate_length(one, read["input_ids"].shape[1], positions)
        with torch.no_grad():
            tokens = model.generate(**read, do_sample=False, max_new_tokens=max_new_tokens, **settings)
        return [{"generated_text": tokenizer.decode(tokens[0], skip_special_tokens=True)}]

    return ask


def question_answerer(folder: Path, base: Path, max_new_tokens: int) -> Callable[[Any], Any]:
    """Finds the answer to a question in its context, all of it, as the objective's evaluation does."""
    import numpy as np
    import torch
    from transformers import AutoModelForQuestionAnswering

    from finetune_trainer.data.loading.collate import Layout, to_device
    from finetune_trainer.data.records.row import make_row
    from finetune_trainer.huggingface.pretrained import max_positions
    from finetune_trainer.objectives.question_answering import QuestionAnswering

    model, tokenizer = _loaded(AutoModelForQuestionAnswering, folder, base)
    window = min(tokenizer.model_max_length, max_positions(model) or LONGEST, LONGEST)
    objective = QuestionAnswering(_spec(folder, window), tokenizer)
    objective.set_statistics({"unanswerable": False} | _told(folder, "facts"))

    def ask(one: Any) -> Any:
        if not isinstance(one, dict) or not {"question", "context"} <= one.keys():
            advice = 'give JSON such as {"question": "…", "context": "…"}'
            raise ConfigurationError(f"--input: {short(one)} is no question with its context: {advice}")
        row = {"context": one["context"], "question": one["question"], "answers": []}
        [encoded] = objective.encode([make_row(row, {name: name for name in row}, "--input")])
        if not encoded.examples:
            raise ConfigurationError(f"--input: {short(one)} has no words to ask about: fill question and context")
        rows = [{name: np.asarray(values) for name, values in example.items()} for example in encoded.examples]
        with torch.no_grad():
            [said] = objective.answers(model, to_device(objective.collate(rows, [], Layout()), model.device))
        text = one["context"][said.begin : said.end]
        return {"answer": text, "score": said.probability, "start": said.begin, "end": said.end}

    return ask


TASKS: Mapping[str, Callable[[Path, Path, int], Callable[[Any], Any]]] = {
    "text2text-generation": text_generator,
    "summarization": text_generator,
    "translation": text_generator,
    "question-answering": question_answerer,
}
"""By the hub's names of tasks: what asks the model of a folder, or the adapter in it on the model of a second one."""


def _loaded(auto: Any, folder: Path, base: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoTokenizer

    try:
        model = auto.from_pretrained(str(base))
    except ValueError as error:  # a configuration of another kind of model
        raise ConfigurationError(f"MODEL: {base} is no {auto.__name__}: name another, or another --task") from error
    if base != folder:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), AutoTokenizer.from_pretrained(str(folder))


def _spec(folder: Path, window: int) -> TrainSpec:
    """As much of the run's document as says how questions are asked; without one in windows of so many tokens."""
    document, name = _told(folder, "document"), "QuestionAnswering"
    options = document.get("objective", {}).get(field_of(name), {})
    window = document.get("data", {}).get("maxLength", window)
    here = {"source": f"file://{folder}"}
    try:
        return TrainSpec.model_validate(
            {
                "model": here,
                "data": {"train": [here], "maxLength": window},
                "objective": {"type": name, field_of(name): options},
                "checkpoint": {"storage": here["source"]},
            }
        )
    except ValidationError as error:
        raise ConfigurationError(f"MODEL: {folder}/training/document.json: {explain(error)[0]}") from error


def _told(folder: Path, name: str) -> dict[str, Any]:
    file = folder / "training" / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return found


def validate_length(one: Any, length: int, most: int | None) -> None:
    """Raises ConfigurationError for an input of more tokens than the model reads."""
    if most is not None and length > most:
        raise ConfigurationError(f"--input: {short(one)} is {length} tokens, and the model reads {most}: shorten it")


def short(one: Any) -> str:
    """An input, as much of it as fits into a sentence."""
    text = one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
