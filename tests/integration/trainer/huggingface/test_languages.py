"""Multilingual translation models: the tokens of the source and the target language."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from tests.support import ciphers, corpora, tiny
from tests.support.learning import BART, learn
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    M2M100Config,
    M2M100Tokenizer,
    MBart50Tokenizer,
    MBartConfig,
    MBartTokenizer,
    NllbTokenizer,
)
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

from finetune_trainer import config, objectives
from finetune_trainer.data.loading.dataset import TOKENS
from finetune_trainer.data.preprocessing.prepare import prepare
from finetune_trainer.data.records.row import make_row
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.huggingface import languages
from finetune_trainer.inference.predict import main as predict
from finetune_trainer.objectives.seq2seq import Seq2Seq
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials

FIELD = "spec.objective.seq2Seq.languages"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
TINY = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    "decoder_start_token_id": 2,
}  # fmt: skip


def nllb(folder: Path) -> Any:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, "▁", *"abcdefghij"])}
    return NllbTokenizer(vocab=vocabulary, merges=[])


def m2m100(folder: Path) -> Any:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g h i j"] * 20), model_prefix=f"{folder}/pieces", vocab_size=24, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/pieces.model")
    vocabulary = [pieces.id_to_piece(number) for number in range(3, len(pieces))]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(SPECIAL + vocabulary)}))
    # As the tokenizers of the hub have it; otherwise the codes do not count as tokens.
    codes = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    return M2M100Tokenizer(f"{folder}/vocab.json", f"{folder}/pieces.model", additional_special_tokens=codes)


def mbart(folder: Path) -> Any:
    return MBartTokenizer(vocab=[*((token, 0.0) for token in SPECIAL), *((piece, -1.0) for piece in ["▁", *"abcdefghij"])])


def mbart50(folder: Path, pieces: list[str] | None = None) -> Any:
    return MBart50Tokenizer(vocab=[("", 0.0)] * 3 + [(piece, -1.0) for piece in pieces or ["▁", *"abcdefghij"]])


FAMILIES: dict[str, tuple[Callable[[Path], Any], Any, str, str]] = {
    "nllb": (nllb, M2M100Config, "deu_Latn", "fra_Latn"), "m2m100": (m2m100, M2M100Config, "de", "fr"),
    "mbart50": (mbart50, MBartConfig, "de_DE", "fr_XX"), "mbart": (mbart, MBartConfig, "de_DE", "fr_XX"),
}  # fmt: skip


def objective(tokenizer: Any, source: str, target: str) -> Seq2Seq:
    options = {"maxTargetLength": 8, "metrics": [], "languages": {"source": source, "target": target}}
    return Seq2Seq.from_spec(tiny.spec(objective={"type": "Seq2Seq", "seq2Seq": options}, data={"maxLength": 16}), tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_encodes_and_generates_as_the_tokenizer_of_the_family_does(family: str, tmp_path: Path) -> None:
    create_tokenizer, config_class, source, target = FAMILIES[family]
    tokenizer = create_tokenizer(tmp_path)
    seq2seq = objective(tokenizer, source, target)
    reference = create_tokenizer(tmp_path)
    expected = reference._build_translation_inputs("a b c", src_lang=source, tgt_lang=target, return_tensors="pt")
    reference.tgt_lang = target
    row = {"text": "a b c", "target": "d e"}
    [encoded] = seq2seq.encoder.encode([make_row(row, {name: name for name in row}, "rows:1")])
    [example] = encoded.examples
    assert example["input_ids"].tolist() == expected["input_ids"][0].tolist()
    assert example["target"].tolist() == reference(text_target="d e")["input_ids"]
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config_class(vocab_size=len(tokenizer), **TINY)).eval()
    seq2seq.model_setup.prepare(model, None)
    generated = model.generate(expected["input_ids"], max_new_tokens=3, do_sample=False)[0].tolist()
    assert expected["forced_bos_token_id"] in generated[:2]
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    inputs = AutoTokenizer.from_pretrained(tmp_path / "model")(["a b c"], return_tensors="pt")["input_ids"]
    exported = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    assert exported.generate(inputs, max_new_tokens=3, do_sample=False)[0].tolist() == generated


@pytest.mark.parametrize("family", FAMILIES)
def test_rejects_missing_and_unknown_languages(family: str, tmp_path: Path) -> None:
    create_tokenizer, _, source, _ = FAMILIES[family]
    tokenizer = create_tokenizer(tmp_path)
    name = type(tokenizer).__name__
    with pytest.raises(ConfigurationError) as raised:
        languages.set_languages(tokenizer, None, FIELD)
    assert str(raised.value) == f"{FIELD}: a {name} adds language tokens to each text: set source and target"
    for wrong in ("</s>", "german", "a"):
        with pytest.raises(ConfigurationError) as raised:
            languages.set_languages(tokenizer, config.LanguagesConfig(source=source, target=wrong), FIELD)
        message, _, codes = str(raised.value).partition(": use one of its codes, such as ")
        assert message == f"{FIELD}.target: a {name} does not support {wrong}"
        suggested = config.LanguagesConfig(source=codes.split(", ")[0], target=source)
        assert languages.set_languages(tokenizer, suggested, FIELD) is not None


def test_rejects_languages_for_other_tokenizers() -> None:
    assert languages.set_languages(tiny.tokenizer(), None, FIELD) is None
    with pytest.raises(ConfigurationError, match=r"languages: a .* has no language tokens: remove it, and name"):
        languages.set_languages(tiny.tokenizer(), config.LanguagesConfig(source="de", target="fr"), FIELD)


def test_trains_a_model_to_generate_the_target_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = corpora.spelt_out()[:150]
    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    texts = [text for row in rows for text in row.values()]
    pieces.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=300, show_progress=False))
    tokenizer = mbart50(tmp_path, [piece for piece, _ in json.loads(pieces.to_str())["model"]["vocab"]])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    learned = learn(
        tmp_path, rows,
        model={"config": BART | {"model_type": "mbart"}, "tokenizer": {"source": f"file://{tmp_path}/tokenizer"}},
        objective={
            "type": "Seq2Seq",
            "seq2Seq": {"maxTargetLength": 24, "metrics": [], "languages": {"source": "en_XX", "target": "fr_XX"}},
        },
        training={"maxSteps": 60},
    )  # fmt: skip
    assert learned.before["tokenAccuracy"] < 0.1
    assert learned.after["tokenAccuracy"] > 0.3
    capsys.readouterr()
    assert (
        predict([str(learned.model), "--input", "run_forever", "--max-new-tokens", "6", f"--cache-dir={tmp_path}/cache"]) == 0
    )
    exported, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(learned.model), AutoTokenizer.from_pretrained(learned.model)
    inputs = tokenizer("run_forever", return_tensors="pt")
    generated = exported.generate(**inputs, max_new_tokens=6, do_sample=False)[0]
    assert tokenizer.convert_ids_to_tokens(generated[1:2]) == ["fr_XX"]
    assert capsys.readouterr().out == f"run_forever: {tokenizer.decode(generated, skip_special_tokens=True)}\n"


def test_back_translates_with_multilingual_models(tmp_path: Path) -> None:
    """Translators with made-up weights, whose tokenizers put language tokens before each text."""
    words, rows = ["good", "fine", "dog", "gut", "hund"], ["good dog", "fine dog fine", "dog"] * 4

    def translator(name: str, dictionary: dict[str, str], source: str, target: str) -> dict[str, Any]:
        tokenizer = mbart50(tmp_path, [f"▁{word}" for word in words])
        vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        known = {f"▁{word}": {f"▁{other}": 1.0} for word, other in dictionary.items()}
        model = ciphers.model(vocabulary, known, sharpness=4.0)
        for settings in (model.config, model.generation_config):
            settings.pad_token_id, settings.eos_token_id, settings.decoder_start_token_id = 1, 2, 2
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return {"source": f"file://{tmp_path}/{name}", "languages": {"source": source, "target": target}}

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))

    def texts(**changes: Any) -> list[str]:
        there = translator("there", {"good": "gut", "fine": "gut", "dog": "hund"}, "en_XX", "de_DE")
        back = translator("back", {"gut": "good", "hund": "dog"}, "de_DE", "en_XX")
        translation = {"forward": there | changes, "back": back, "maxLength": 16}
        document = tiny.spec().document() | {
            "objective": {"type": "MaskedLM"},
            "data": {
                "train": [{"source": f"file://{tmp_path}/rows.jsonl"}], "packing": False, "maxLength": 16,
                "augmentation": {"backTranslation": translation},
            },
        }  # fmt: skip
        spec = config.TrainSpec.model_validate(document)
        tokenizer = ciphers.tokenizer([ciphers.PADDING, ciphers.END, ciphers.UNKNOWN, "<mask>", *words])
        tokenizer.add_special_tokens({"mask_token": "<mask>", "cls_token": ciphers.END, "sep_token": ciphers.END})
        encoder = objectives.from_spec(spec, tokenizer).encoder
        found = prepare(spec, encoder, SourceResolver(spec.objective, tmp_path / "cache", Credentials()))
        return [tokenizer.decode(row[TOKENS], skip_special_tokens=True) for row in found.train]

    train = texts()
    assert train[::2] == rows
    assert train[1::2] == [row.replace("fine", "good") for row in rows]
    with pytest.raises(ConfigurationError, match=r"forward.languages: a MBart50Tokenizer adds language tokens to each text"):
        texts(languages=None)
    with pytest.raises(ConfigurationError, match=r"forward.languages.target: a MBart50Tokenizer does not support de: .* de_DE"):
        texts(languages={"source": "en_XX", "target": "de"})
