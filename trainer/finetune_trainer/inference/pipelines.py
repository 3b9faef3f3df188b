"""Pipelines for tasks that transformers 5 has none for: encoder-decoder models and question answering.

Their settings (a prefix, beams, the length of windows and answers) come from the reports in the exported folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_trainer.config import TrainSpec, explain
from finetune_trainer.config.objectives import field_of
from finetune_trainer.config.storage_schemes import FILE
from finetune_trainer.inference.formatting import shorten
from finetune_trainer.protocol.outcome import ConfigurationError

DEFAULT_WINDOW = 512  # tokens, if neither the run's document nor the tokenizer limits them


def text_generator(folder: Path, base: Path, max_new_tokens: int) -> Callable[[Any], Any]:
    """A function that generates a text from a text; raises ConfigurationError for a model that is not an encoder-decoder."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from finetune_trainer.huggingface.pretrained import max_positions

    options = read_report(folder, "document").get("objective", {}).get(field_of("Seq2Seq"), {})
    model, tokenizer = _load_model(AutoModelForSeq2SeqLM, folder, base)
    settings = {"num_beams": options["beams"]} if "beams" in options else {}
    positions = max_positions(model)

    def generate(value: Any) -> Any:
        if not isinstance(value, str):
            raise ConfigurationError(f'--input: {shorten(value)} is not a text: give one, or JSON such as {{"text": "…"}}')
        text = options.get("prefix", "") + value
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(model.device)
        validate_length(value, inputs["input_ids"].shape[1], positions)
        with torch.no_grad():
            tokens = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens, **settings)
        return [{"generated_text": tokenizer.decode(tokens[0], skip_special_tokens=True)}]

    return generate


def question_answerer(folder: Path, base: Path, max_new_tokens: int) -> Callable[[Any], Any]:
    """A function that finds the answer to a question anywhere in its context, as the objective's evaluation does."""
    import numpy as np
    import torch
    from transformers import AutoModelForQuestionAnswering

    from finetune_trainer.data.loading.collate import Layout
    from finetune_trainer.data.records.row import make_row
    from finetune_trainer.huggingface.pretrained import max_positions
    from finetune_trainer.objectives.question_answering import QuestionAnswering

    model, tokenizer = _load_model(AutoModelForQuestionAnswering, folder, base)
    window = min(tokenizer.model_max_length, max_positions(model) or DEFAULT_WINDOW, DEFAULT_WINDOW)
    objective = QuestionAnswering.from_spec(_question_answering_spec(folder, window), tokenizer)
    objective.encoder.set_statistics({"unanswerable": False} | read_report(folder, "facts"))

    def answer(value: Any) -> Any:
        if not isinstance(value, dict) or not {"question", "context"} <= value.keys():
            remedy = 'give JSON such as {"question": "…", "context": "…"}'
            raise ConfigurationError(f"--input: {shorten(value)} is not a question with its context: {remedy}")
        fields = {"context": value["context"], "question": value["question"], "answers": []}
        [encoded] = objective.encoder.encode([make_row(fields, {name: name for name in fields}, "--input")])
        if not encoded.examples:
            raise ConfigurationError(f"--input: {shorten(value)} has an empty question or context: fill both")
        samples = [{name: np.asarray(values) for name, values in example.items()} for example in encoded.examples]
        with torch.no_grad():
            batch = objective.collator.collate(samples, [], Layout()).to(model.device)
            [span] = objective.metrics.answers(model, batch)
        text = value["context"][span.begin : span.end]
        return {"answer": text, "score": span.probability, "start": span.begin, "end": span.end}

    return answer


TASKS: Mapping[str, Callable[[Path, Path, int], Callable[[Any], Any]]] = {
    "text2text-generation": text_generator,
    "summarization": text_generator,
    "translation": text_generator,
    "question-answering": question_answerer,
}
"""Builders by the hub's names of tasks, called with the folder of the model or adapter, that of the base model, and the
maximum number of new tokens."""


def _load_model(auto_class: Any, folder: Path, base: Path) -> tuple[Any, Any]:
    """Model and tokenizer; the folder holds the model or an adapter for the model in `base`."""
    import torch
    from transformers import AutoTokenizer

    try:
        model = auto_class.from_pretrained(str(base))
    except ValueError as error:  # the configuration of a model for another task
        name = auto_class.__name__
        raise ConfigurationError(f"MODEL: {name} cannot load {base}: name another model, or another --task") from error
    if base != folder:
        from peft import PeftModel

        from finetune_trainer.models.embeddings import grow_embeddings

        grow_embeddings(model, AutoTokenizer.from_pretrained(str(folder)))
        model = PeftModel.from_pretrained(model, str(folder))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), AutoTokenizer.from_pretrained(str(folder))


def _question_answering_spec(folder: Path, window: int) -> TrainSpec:
    """A document with the objective and the window length of the run; `window` tokens if the folder has no document."""
    document, name = read_report(folder, "document"), "QuestionAnswering"
    options = document.get("objective", {}).get(field_of(name), {})
    window = document.get("data", {}).get("maxLength", window)
    source = {"source": f"{FILE.prefix}{folder}"}
    try:
        return TrainSpec.model_validate(
            {
                "model": source,
                "data": {"train": [source], "maxLength": window},
                "objective": {"type": name, field_of(name): options},
                "checkpoint": {"storage": source["source"]},
            }
        )
    except ValidationError as error:
        raise ConfigurationError(f"MODEL: {folder}/training/document.json: {explain(error)[0]}") from error


def read_report(folder: Path, name: str) -> dict[str, Any]:
    file = folder / "training" / f"{name}.json"
    if not file.is_file():
        return {}
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def validate_length(value: Any, length: int, limit: int | None) -> None:
    """Raise ConfigurationError for an input with more tokens than the model accepts."""
    if limit is not None and length > limit:
        raise ConfigurationError(f"--input: {shorten(value)} has {length} tokens, and the model accepts {limit}: shorten it")
