"""`finetune predict` with an exported folder of each kind of model."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from tests.support import corpora, s3, tiny
from tests.support.learning import BERT as ENCODER
from tests.support.learning import T5, learn
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    ViTConfig,
    ViTImageProcessor,
)

from finetune_operator.cli import main
from finetune_trainer import config
from finetune_trainer.data.records.row import make_row
from finetune_trainer.data.sources.stream import is_held_out
from finetune_trainer.inference import formatting, predict
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.metrics.squad import exact_match_and_f1
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.registry import open_storage

TOKENIZER = tokenizer_training.train_tokenizer(["some words to learn a vocabulary of"] * 3, 300, adds_special_tokens=True)
BERT = BertConfig(
    vocab_size=320, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1},
)  # fmt: skip
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"

ROLES = {role: role for role in ("context", "question", "answers")}
HELD_OUT: dict[str, Any] = {"train": [{"source": "file:///rows"}], "evaluationFraction": 0.2}


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(model: str | Path, *arguments: str) -> list[str]:
        capsys.readouterr()
        code = predict.main([str(model), *arguments, f"--cache-dir={tmp_path}/cache"])
        captured = capsys.readouterr()
        return captured.out.splitlines() if code == 0 else [str(code), *captured.err.splitlines()]

    return run


def bert(folder: Path, auto: Any) -> Path:
    torch.manual_seed(0)
    auto.from_config(BERT).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def llama(folder: Path) -> Path:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = CHAT
    tiny.llama().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_classifies_texts_and_pairs(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bert(tmp_path / "model", AutoModelForSequenceClassification)
    first, second = ask(model, "--input", "some words", "--input", '{"text": "some", "text_pair": "words"}')
    assert {entry.split()[0] for entry in first.removeprefix("some words: ").split(", ")} == {"bad", "good"}
    assert second.startswith('{"text": "some", "text_pair": "words"}: ')
    (tmp_path / "rows.jsonl").write_text('{"text": "some words"}\n\n{"text": "some", "text_pair": "words"}\n')
    [text, pair] = [json.loads(line) for line in ask(model, "--json", "--input", str(tmp_path / "rows.jsonl"))]
    assert text["input"] == "some words"
    assert sum(label["score"] for label in text["output"]) == pytest.approx(1)
    assert pair["output"] != text["output"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("some words\n"))
    assert ask(f"file://{model}") == [first]


def test_predicts_for_other_text_tasks(ask: Any, tmp_path: Path) -> None:
    [line] = ask(bert(tmp_path / "tokens", AutoModelForTokenClassification), "--input", "some words")
    assert line.startswith(("some words: good 'some words' 0.", "some words: bad 'some words' 0."))
    masked = bert(tmp_path / "masked", AutoModelForMaskedLM)
    [line] = ask(masked, "--input", "some [MASK]")
    assert len(line.split(", ")) == formatting.MAX_ENTRIES
    [line] = ask(bert(tmp_path / "features", AutoModel), "--input", "some words")
    assert line == "some words: 1 x 4 x 16 numbers"
    [line] = ask(masked, "--task", "feature-extraction", "--input", "some words")
    assert line == "some words: 1 x 4 x 16 numbers"


def test_continues_texts_and_chats(ask: Any, tmp_path: Path) -> None:
    model = llama(tmp_path / "model")
    chat = '{"messages": [{"role": "user", "content": "w1 w2"}]}'
    text, answer = ask(model, "--max-new-tokens", "3", "--input", "w1 w2", "--input", chat)
    assert text.startswith("w1 w2: ")
    assert len(text.removeprefix("w1 w2: ").split()) == len(answer.partition("]: ")[2].split()) == 3


def test_rejects_inputs_longer_than_the_model_accepts(ask: Any, tmp_path: Path) -> None:
    """Texts and JSON longer than a file name, for models of 128 positions."""
    tiny.gpt2().save_pretrained(tmp_path / "decoder")
    tiny.tokenizer().save_pretrained(tmp_path / "decoder")
    [line] = ask(tmp_path / "decoder", "--json", "--input", "w1 " * 125)
    assert len(json.loads(line)["output"][0]["generated_text"].split()) <= 3
    assert ask(tmp_path / "decoder", "--input", "w1 " * 128)[1].endswith(
        " has 128 tokens, and the model accepts 127: shorten it"
    )
    tiny.bert().save_pretrained(tmp_path / "encoder")
    tiny.tokenizer().save_pretrained(tmp_path / "encoder")
    row = {"text": "w1 " * 60, "text_pair": "w2 " * 60, "label": "LABEL_1"}
    [line] = ask(tmp_path / "encoder", "--json", "--input", json.dumps(row))
    assert len(json.loads(line)["output"]) == tiny.LABELS
    for longer in (row["text"] * 3, json.dumps(row | {"text": row["text"] * 3})):
        assert ask(tmp_path / "encoder", "--input", longer)[1].endswith("tokens, and the model accepts 128: shorten it")


def test_loads_an_adapter_with_its_base_model(
    ask: Any, tmp_path: Path, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    base, folder = llama(tmp_path / "base"), tmp_path / "adapter"
    adapted = peft.get_peft_model(tiny.llama(), peft.LoraConfig(target_modules=["q_proj", "down_proj"], r=4))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    tiny.tokenizer().save_pretrained(folder)
    expected = adapted.generate(**tiny.tokenizer()("w1 w2", return_tensors="pt"), max_new_tokens=5, do_sample=False)
    ModelCard("---\npipeline_tag: text-generation\n---\n").save(folder / "README.md")
    open_storage(s3_server.uri("base"), Credentials()).upload_folder(base)
    for name in (str(base), s3_server.uri("base")):
        adapted.peft_config["default"].base_model_name_or_path = name
        adapted.save_pretrained(folder)
        open_storage(s3_server.uri("adapter"), Credentials()).upload_folder(folder)
        for model in (folder, s3_server.uri("adapter")):
            [line] = ask(model, "--max-new-tokens", "5", "--input", "w1 w2")
            assert line == f"w1 w2: {tiny.tokenizer().decode(expected[0, 2:])}"
    assert ask(base, "--max-new-tokens", "5", "--input", "w1 w2") != [line]


def test_classifies_an_image(ask: Any, tmp_path: Path) -> None:
    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4,
        id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "model")
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "model")
    picture = tmp_path / "picture.png"
    Image.new("RGB", (10, 10), "red").save(picture)
    [line] = ask(tmp_path / "model", "--input", str(picture))
    assert "cat 0." in line
    assert "dog 0." in line
    assert ask(tmp_path / "model", "--input", "absent.png") == [
        "2", "--input: absent.png does not exist: correct the path or put it there",
    ]  # fmt: skip


def test_an_adapter_of_a_classifier_has_the_labels_of_its_run(ask: Any, tmp_path: Path) -> None:
    labels = ["positive", "neutral", "negative"]
    base, folder = bert(tmp_path / "base", AutoModelForMaskedLM), tmp_path / "adapter"
    classifier = AutoModelForSequenceClassification.from_pretrained(base, id2label=dict(enumerate(labels)))
    adapted = peft.get_peft_model(classifier, peft.LoraConfig(task_type="SEQ_CLS", r=2))
    with torch.no_grad():
        adapted.base_model.model.classifier.modules_to_save["default"].bias.copy_(torch.tensor([4.0, 0.0, 8.0]))
    adapted.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    (folder / "training").mkdir()
    (folder / "training/facts.json").write_text(json.dumps({"labels": labels}))
    objective = {"type": "SequenceClassification", "sequenceClassification": {"problem": "SingleLabel"}}
    (folder / "training/document.json").write_text(json.dumps({"objective": objective}))
    [line] = ask(folder, "--task", "text-classification", "--json", "--input", "w1 w2")
    assert [answer["label"] for answer in json.loads(line)["output"]] == ["negative", "positive", "neutral"]


def test_an_encoder_decoder_generates_with_the_objectives_prefix_and_beams(ask: Any, tmp_path: Path) -> None:
    options = {"prefix": "spell: ", "maxTargetLength": 16, "metrics": [], "beams": 2}
    rows = corpora.spelt_out()[:150]
    model = learn(
        tmp_path, rows, model={"config": T5}, objective={"type": "Seq2Seq", "seq2Seq": options}, training={"maxSteps": 30},
    ).model  # fmt: skip
    tokenizer, reference = AutoTokenizer.from_pretrained(model), AutoModelForSeq2SeqLM.from_pretrained(model)

    def generate(prefix: str, **settings: Any) -> str:
        inputs = tokenizer(prefix + "run_forever", return_tensors="pt")
        return str(tokenizer.decode(reference.generate(**inputs, do_sample=False, **settings)[0], skip_special_tokens=True))

    expected = generate("spell: ", num_beams=2, max_new_tokens=9)
    assert expected
    assert ask(model, "--max-new-tokens", "9", "--input", "run_forever") == [f"run_forever: {expected}"]
    [line] = ask(model, "--json", "--max-new-tokens", "2", "--input", '{"text": "run_forever", "target": "run forever"}')
    assert json.loads(line) == {
        "input": "run_forever", "output": [{"generated_text": generate("spell: ", num_beams=2, max_new_tokens=2)}],
    }  # fmt: skip
    (model / "training/document.json").unlink()
    (model / "README.md").unlink()
    assert ask(model, "--max-new-tokens", "9", "--input", "run_forever") == [f"run_forever: {generate('', max_new_tokens=9)}"]
    [error] = ask(model, "--input", '[{"role": "user", "content": "x"}]')[1:]
    assert error.endswith('is not a text: give one, or JSON such as {"text": "…"}')


def test_an_adapter_of_an_encoder_decoder_generates_with_its_base_model(ask: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, folder, tokenizer = tmp_path / "base", tmp_path / "adapter", tiny.tokenizer()
    bart = AutoModelForSeq2SeqLM.from_config(
        BartConfig(
            vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16,
            decoder_attention_heads=2, decoder_ffn_dim=16, max_position_embeddings=24, init_std=0.5, pad_token_id=0,
            bos_token_id=0, eos_token_id=63, forced_eos_token_id=None, decoder_start_token_id=0,
        )
    )  # fmt: skip
    bart.save_pretrained(base)
    tokenizer.save_pretrained(base)
    base_output = ask(base, "--max-new-tokens", "6", "--json", "--input", "w1 w2")
    adapted = peft.get_peft_model(bart, peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q_proj", "fc1"], r=4))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=2.0)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    inputs = {name: tensor for name, tensor in tokenizer("w1 w2", return_tensors="pt").items() if "type" not in name}
    tokens = adapted.eval().generate(**inputs, do_sample=False, max_new_tokens=6)[0]
    [line] = ask(folder, "--task", "summarization", "--max-new-tokens", "6", "--json", "--input", "w1 w2")
    assert json.loads(line)["output"] == [{"generated_text": tokenizer.decode(tokens, skip_special_tokens=True)}]
    assert [line] != base_output
    [error] = ask(base, "--input", "w1 w2 " * 15)[1:]
    assert error.endswith("tokens, and the model accepts 24: shorten it")


def test_answers_questions_as_the_evaluation_does(ask: Any, tmp_path: Path) -> None:
    rows = corpora.asked(60)
    run = learn(
        tmp_path, rows, model={"config": ENCODER}, data={"maxLength": 64},
        objective={"type": "QuestionAnswering", "questionAnswering": {"stride": 16, "maxAnswerLength": 8}},
        training={"maxSteps": 120},
    )  # fmt: skip
    held_out = [row for row in rows if is_held_out(make_row(row, ROLES, ""), config.DataConfig(**HELD_OUT))]
    file = tmp_path / "held-out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in held_out))
    answers = [json.loads(line)["output"] for line in ask(run.model, "--json", "--input", str(file))]
    scores = [
        exact_match_and_f1(answer["answer"], row["answers"]["text"]) for answer, row in zip(answers, held_out, strict=True)
    ]
    exact, f1 = (sum(score) / len(scores) for score in zip(*scores, strict=True))
    assert run.after["exactMatch"] == pytest.approx(exact)
    assert run.after["f1"] == pytest.approx(f1)
    assert {"", "self"} <= {answer["answer"] for answer in answers}, "some of the questions have no answer"
    for answer, row in zip(answers, held_out, strict=True):
        assert answer["answer"] == row["context"][answer["start"] : answer["end"]]
        assert 0 < answer["score"] <= 1
    question = json.dumps({"question": held_out[0]["question"], "context": held_out[0]["context"]})
    [line] = ask(run.model, "--input", question)
    assert line.endswith(f": {answers[0]['answer'] or 'no answer'} {answers[0]['score']:.3f}")


def test_answers_with_the_likeliest_span_without_a_document(ask: Any, tmp_path: Path) -> None:
    model = bert(tmp_path / "model", AutoModelForQuestionAnswering)
    question = {"question": "some?", "context": "some words to learn"}
    [line] = ask(model, "--json", "--input", json.dumps(question))
    answer = json.loads(line)["output"]
    pair = TOKENIZER(*question.values(), return_tensors="pt", return_offsets_mapping=True)
    offsets, in_context = pair.pop("offset_mapping")[0], torch.tensor([part == 1 for part in pair.sequence_ids(0)])
    with torch.no_grad():
        outputs = AutoModelForQuestionAnswering.from_pretrained(model)(**pair)
    first, last = outputs.start_logits[0].softmax(0), outputs.end_logits[0].softmax(0)
    spans = (first[:, None] * last[None]).triu() * in_context[:, None] * in_context[None]
    begin, end = divmod(int(spans.argmax()), len(last))
    assert (answer["start"], answer["end"]) == (int(offsets[begin, 0]), int(offsets[end, 1]))
    assert answer["score"] == pytest.approx(float(spans.max()), rel=1e-4)
    assert answer["answer"] == question["context"][answer["start"] : answer["end"]]
    for value, message in (
        ("some words", "some words is not a question with its context: give JSON such as"),
        ('{"question": " ", "context": "words"}', "has an empty question or context: fill both"),
        ('{"question": null, "context": "words"}', "column question is null, not a string"),
    ):
        code, error = ask(model, "--input", value)
        assert code == "2"
        assert error.startswith("--input: ")
        assert message in error


def test_rejects_unusable_models_and_tasks(ask: Any, tmp_path: Path) -> None:
    absent = ask(tmp_path / "absent", "--input", "x")
    assert absent == [
        "2",
        f"MODEL: file://{tmp_path}/absent does not exist ({tmp_path}/absent): correct the path, or create it",
    ]
    (tmp_path / "empty").mkdir()
    assert ask(tmp_path / "empty", "--input", "x")[1].startswith("MODEL: ")
    assert "add --task" in ask(tmp_path / "empty", "--input", "x")[1]
    part = bert(tmp_path / "several/topic", AutoModelForSequenceClassification)
    assert ask(tmp_path / "several", "--task", "fill-mask", "--input", "x") == [
        "2", f"MODEL: {tmp_path}/several contains no model: name one of {part}",
    ]  # fmt: skip
    assert ask(part, "--task", "guessing", "--input", "x")[1].startswith("--task: Unknown task guessing")


def test_runs_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    model = bert(tmp_path / "model", AutoModelForSequenceClassification)
    monkeypatch.chdir(tmp_path)
    assert main.main(["predict", "model", "--input", "some words", "--json", "--task", "text-classification"]) == 0
    [line] = capfd.readouterr().out.splitlines()
    assert {label["label"] for label in json.loads(line)["output"]} == {"good", "bad"}
    assert model.is_dir()
    assert main.main(["predict", "absent", "--input=-x"]) == 2
    assert "MODEL: file://absent does not exist" in capfd.readouterr().err
