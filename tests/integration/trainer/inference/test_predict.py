"""`finetune predict`: what a person sees of an exported folder, for each kind of model."""

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
from tests.support.learning import BERT as READER
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
from finetune_trainer.data.sources.stream import is_held_out
from finetune_trainer.inference import predict
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.metrics.squad import agreement
from finetune_trainer.storage.base import Credentials, Storage

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
    def asked(model: str | Path, *words: str) -> list[str]:
        capsys.readouterr()
        code = predict.main([str(model), *words, f"--cache-dir={tmp_path}/cache"])
        said = capsys.readouterr()
        return said.out.splitlines() if code == 0 else [str(code), *said.err.splitlines()]

    return asked


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


def test_labels_of_texts_and_pairs(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bert(tmp_path / "model", AutoModelForSequenceClassification)
    first, second = ask(model, "--input", "some words", "--input", '{"text": "some", "text_pair": "words"}')
    assert {word.split()[0] for word in first.removeprefix("some words: ").split(", ")} == {"bad", "good"}
    assert second.startswith('{"text": "some", "text_pair": "words"}: ')
    (tmp_path / "rows.jsonl").write_text('{"text": "some words"}\n\n{"text": "some", "text_pair": "words"}\n')
    [one, pair] = [json.loads(line) for line in ask(model, "--json", "--input", str(tmp_path / "rows.jsonl"))]
    assert one["input"] == "some words"
    assert sum(label["score"] for label in one["output"]) == pytest.approx(1)
    assert pair["output"] != one["output"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("some words\n"))
    assert ask(f"file://{model}") == [first]


def test_other_tasks_of_texts(ask: Any, tmp_path: Path) -> None:
    [line] = ask(bert(tmp_path / "tokens", AutoModelForTokenClassification), "--input", "some words")
    assert line.startswith(("some words: good 'some words' 0.", "some words: bad 'some words' 0."))
    masked = bert(tmp_path / "masked", AutoModelForMaskedLM)
    [line] = ask(masked, "--input", "some [MASK]")
    assert len(line.split(", ")) == predict.MOST_SHOWN
    [line] = ask(bert(tmp_path / "features", AutoModel), "--input", "some words")
    assert line == "some words: 1 x 4 x 16 numbers"
    [line] = ask(masked, "--task", "feature-extraction", "--input", "some words")
    assert line == "some words: 1 x 4 x 16 numbers"


def test_texts_and_chats_go_on(ask: Any, tmp_path: Path) -> None:
    model = llama(tmp_path / "model")
    chat = '{"messages": [{"role": "user", "content": "w1 w2"}]}'
    text, answer = ask(model, "--max-new-tokens", "3", "--input", "w1 w2", "--input", chat)
    assert text.startswith("w1 w2: ")
    assert len(text.removeprefix("w1 w2: ").split()) == len(answer.partition("]: ")[2].split()) == 3


def test_what_is_too_long_to_read_or_leaves_little_room(ask: Any, tmp_path: Path) -> None:
    """Texts and JSON longer than any file name, beside models of 128 positions."""
    tiny.gpt2().save_pretrained(tmp_path / "writer")
    tiny.tokenizer().save_pretrained(tmp_path / "writer")
    [line] = ask(tmp_path / "writer", "--json", "--input", "w1 " * 125)
    assert len(json.loads(line)["output"][0]["generated_text"].split()) <= 3
    assert ask(tmp_path / "writer", "--input", "w1 " * 128)[1].endswith(" is 128 tokens, and the model reads 127: shorten it")
    tiny.bert().save_pretrained(tmp_path / "reader")
    tiny.tokenizer().save_pretrained(tmp_path / "reader")
    row = {"text": "w1 " * 60, "text_pair": "w2 " * 60, "label": "LABEL_1"}
    [line] = ask(tmp_path / "reader", "--json", "--input", json.dumps(row))
    assert len(json.loads(line)["output"]) == tiny.LABELS
    for longer in (row["text"] * 3, json.dumps(row | {"text": row["text"] * 3})):
        assert ask(tmp_path / "reader", "--input", longer)[1].endswith("tokens, and the model reads 128: shorten it")


def test_an_adapter_is_asked_on_its_base(
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
    wanted = adapted.generate(**tiny.tokenizer()("w1 w2", return_tensors="pt"), max_new_tokens=5, do_sample=False)
    ModelCard("---\npipeline_tag: text-generation\n---\n").save(folder / "README.md")
    Storage.open(s3_server.uri("base"), Credentials()).upload_folder(base)
    for name in (str(base), s3_server.uri("base")):
        adapted.peft_config["default"].base_model_name_or_path = name
        adapted.save_pretrained(folder)
        Storage.open(s3_server.uri("adapter"), Credentials()).upload_folder(folder)
        for model in (folder, s3_server.uri("adapter")):
            [line] = ask(model, "--max-new-tokens", "5", "--input", "w1 w2")
            assert line == f"w1 w2: {tiny.tokenizer().decode(wanted[0, 2:])}"
    assert ask(base, "--max-new-tokens", "5", "--input", "w1 w2") != [line]


def test_labels_of_an_image(ask: Any, tmp_path: Path) -> None:
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


def test_an_encoder_decoder_writes_what_transformers_writes_after_the_objectives_prefix(ask: Any, tmp_path: Path) -> None:
    options = {"prefix": "spell: ", "maxTargetLength": 16, "metrics": [], "beams": 2}
    rows = corpora.spelt_out()[:150]
    model = learn(
        tmp_path, rows, model={"config": T5}, objective={"type": "Seq2Seq", "seq2Seq": options}, training={"maxSteps": 30},
    ).model  # fmt: skip
    tokenizer, theirs = AutoTokenizer.from_pretrained(model), AutoModelForSeq2SeqLM.from_pretrained(model)

    def written(prefix: str, **settings: Any) -> str:
        read = tokenizer(prefix + "run_forever", return_tensors="pt")
        return str(tokenizer.decode(theirs.generate(**read, do_sample=False, **settings)[0], skip_special_tokens=True))

    wanted = written("spell: ", num_beams=2, max_new_tokens=9)
    assert wanted
    assert ask(model, "--max-new-tokens", "9", "--input", "run_forever") == [f"run_forever: {wanted}"]
    [line] = ask(model, "--json", "--max-new-tokens", "2", "--input", '{"text": "run_forever", "target": "run forever"}')
    assert json.loads(line) == {
        "input": "run_forever", "output": [{"generated_text": written("spell: ", num_beams=2, max_new_tokens=2)}],
    }  # fmt: skip
    (model / "training/document.json").unlink()
    (model / "README.md").unlink()
    assert ask(model, "--max-new-tokens", "9", "--input", "run_forever") == [f"run_forever: {written('', max_new_tokens=9)}"]
    [refused] = ask(model, "--input", '[{"role": "user", "content": "x"}]')[1:]
    assert refused.endswith('is no text: give one, or JSON such as {"text": "…"}')


def test_an_adapter_of_an_encoder_decoder_writes_on_its_base(ask: Any, tmp_path: Path) -> None:
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
    alone = ask(base, "--max-new-tokens", "6", "--json", "--input", "w1 w2")
    adapted = peft.get_peft_model(bart, peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q_proj", "fc1"], r=4))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=2.0)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    read = {name: tensor for name, tensor in tokenizer("w1 w2", return_tensors="pt").items() if "type" not in name}
    tokens = adapted.eval().generate(**read, do_sample=False, max_new_tokens=6)[0]
    [line] = ask(folder, "--task", "summarization", "--max-new-tokens", "6", "--json", "--input", "w1 w2")
    assert json.loads(line)["output"] == [{"generated_text": tokenizer.decode(tokens, skip_special_tokens=True)}]
    assert [line] != alone
    [refused] = ask(base, "--input", "w1 w2 " * 15)[1:]
    assert refused.endswith("tokens, and the model reads 24: shorten it")


def test_a_question_is_answered_as_the_objectives_evaluation_answers_it(ask: Any, tmp_path: Path) -> None:
    rows = corpora.asked(60)
    learnt = learn(
        tmp_path, rows, model={"config": READER}, data={"maxLength": 64},
        objective={"type": "QuestionAnswering", "questionAnswering": {"stride": 16, "maxAnswerLength": 8}},
        training={"maxSteps": 60},
    )  # fmt: skip
    held_out = [row for row in rows if is_held_out(row.make_row(row, ROLES, ""), config.DataConfig(**HELD_OUT))]
    file = tmp_path / "held-out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in held_out))
    answers = [json.loads(line)["output"] for line in ask(learnt.model, "--json", "--input", str(file))]
    agreed = [agreement(one["answer"], row["answers"]["text"]) for one, row in zip(answers, held_out, strict=True)]
    exact, f1 = (sum(part) / len(agreed) for part in zip(*agreed, strict=True))
    assert learnt.after["exactMatch"] == pytest.approx(exact)
    assert learnt.after["f1"] == pytest.approx(f1)
    assert {"", "self"} <= {one["answer"] for one in answers}, "some of the questions have no answer"
    for one, row in zip(answers, held_out, strict=True):
        assert one["answer"] == row["context"][one["start"] : one["end"]]
        assert 0 < one["score"] <= 1
    given = json.dumps({"question": held_out[0]["question"], "context": held_out[0]["context"]})
    [line] = ask(learnt.model, "--input", given)
    assert line.endswith(f": {answers[0]['answer'] or 'no answer'} {answers[0]['score']:.3f}")


def test_a_reader_without_its_document_is_asked_for_the_likeliest_span(ask: Any, tmp_path: Path) -> None:
    model = bert(tmp_path / "model", AutoModelForQuestionAnswering)
    asked = {"question": "some?", "context": "some words to learn"}
    [line] = ask(model, "--json", "--input", json.dumps(asked))
    found = json.loads(line)["output"]
    pair = TOKENIZER(*asked.values(), return_tensors="pt", return_offsets_mapping=True)
    places, inside = pair.pop("offset_mapping")[0], torch.tensor([part == 1 for part in pair.sequence_ids(0)])
    with torch.no_grad():
        outputs = AutoModelForQuestionAnswering.from_pretrained(model)(**pair)
    first, last = outputs.start_logits[0].softmax(0), outputs.end_logits[0].softmax(0)
    spans = (first[:, None] * last[None]).triu() * inside[:, None] * inside[None]
    begin, end = divmod(int(spans.argmax()), len(last))
    assert (found["start"], found["end"]) == (int(places[begin, 0]), int(places[end, 1]))
    assert found["score"] == pytest.approx(float(spans.max()), rel=1e-4)
    assert found["answer"] == asked["context"][found["start"] : found["end"]]
    for given, message in (
        ("some words", "some words is no question with its context: give JSON such as"),
        ('{"question": " ", "context": "words"}', "has no words to ask about: fill question and context"),
        ('{"question": null, "context": "words"}', "column question is null, not a string"),
    ):
        code, refused = ask(model, "--input", given)
        assert code == "2"
        assert refused.startswith("--input: ")
        assert message in refused


def test_what_cannot_be_asked(ask: Any, tmp_path: Path) -> None:
    absent = ask(tmp_path / "absent", "--input", "x")
    assert absent == [
        "2",
        f"MODEL: file://{tmp_path}/absent does not exist ({tmp_path}/absent): correct the path or put it there",
    ]
    (tmp_path / "empty").mkdir()
    assert ask(tmp_path / "empty", "--input", "x")[1].startswith("MODEL: ")
    assert "add --task" in ask(tmp_path / "empty", "--input", "x")[1]
    part = bert(tmp_path / "several/topic", AutoModelForSequenceClassification)
    assert ask(tmp_path / "several", "--task", "fill-mask", "--input", "x") == [
        "2", f"MODEL: {tmp_path}/several holds no model: name one of {part}",
    ]  # fmt: skip
    assert ask(part, "--task", "guessing", "--input", "x")[1].startswith("--task: Unknown task guessing")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    model = bert(tmp_path / "model", AutoModelForSequenceClassification)
    monkeypatch.chdir(tmp_path)
    assert main.main(["predict", "model", "--input", "some words", "--json", "--task", "text-classification"]) == 0
    [line] = capfd.readouterr().out.splitlines()
    assert {label["label"] for label in json.loads(line)["output"]} == {"good", "bad"}
    assert model.is_dir()
    assert main.main(["predict", "absent", "--input=-x"]) == 2
    assert "MODEL: file://absent does not exist" in capfd.readouterr().err
