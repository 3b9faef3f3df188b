"""BLEU and ROUGE of texts in any script, which sacrebleu and rouge_score give with a tokenizer for it."""
# ruff: noqa: RUF001

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from finetune_trainer.objectives.metrics.squad import exact_match_and_f1
from finetune_trainer.objectives.metrics.text_generation import BLEU, ROUGE
from finetune_trainer.objectives.metrics.words import bleu_tokenizer, unicode_words

EXACT_COPIES = [
    "今天天气很好，我们去公园吧。",
    "今日は天気がいいので公園へ行きます。",
    "Сегодня хорошая погода, пойдём в парк.",
    "오늘은 날씨가 좋으니 공원에 갑시다.",
    "วันนี้อากาศดีไปสวนสาธารณะกันเถอะ",
    "الطقس جميل اليوم، لنذهب إلى الحديقة.",
    "आज मौसम अच्छा है, चलो पार्क चलें।",
    "Le café est près de l'hôtel, n'est-ce pas ?",
    "iPhone 15 的价格是 799 美元",
    "Привет мир",
    "はい",
]


def bleu(generated: list[str], references: list[str]) -> float:
    metric = BLEU()
    return metric.scores(np.array(metric.sums(generated, references)))["bleu"]


def rouge(generated: list[str], references: list[str]) -> dict[str, float]:
    metric = ROUGE()
    return metric.scores(np.array(metric.sums(generated, references)))


@pytest.mark.parametrize("text", EXACT_COPIES)
def test_exact_copy_has_the_best_score(text: str) -> None:
    assert bleu([text], [text]) == pytest.approx(100)
    scores = rouge([text], [text])
    assert scores["rouge1"] == scores["rougeL"] == 1
    assert scores["rouge2"] == (len(unicode_words(text)) > 1)


@pytest.mark.parametrize(
    ("generated", "reference", "tokenizer"),
    [
        ("今天天气不错，我们去公园吧。", "今天天气很好，我们去公园吧。", "zh"),
        ("今日は天気が悪いので公園へ行きます。", "今日は天気がいいので公園へ行きます。", "char"),
        ("Сегодня плохая погода, пойдём в парк.", "Сегодня хорошая погода, пойдём в парк.", "13a"),
        ("วันนี้อากาศร้อนไปสวนสาธารณะกัน", "วันนี้อากาศดีไปสวนสาธารณะกันเถอะ", "char"),
        ("The weather is bad, let's go to the park.", "The weather is fine, let's go to the park.", "13a"),
    ],
)
def test_near_copy_has_the_score_of_sacrebleu(generated: str, reference: str, tokenizer: str) -> None:
    assert bleu_tokenizer(reference) == tokenizer
    expected = sacrebleu.corpus_bleu([generated], [[reference]], tokenize=tokenizer).score
    assert 40 < expected < 90
    assert bleu([generated], [reference]) == pytest.approx(expected)


def test_adds_up_texts_of_several_scripts() -> None:
    metric = BLEU()
    texts, references = EXACT_COPIES[:6], [EXACT_COPIES[1], *EXACT_COPIES[1:6]]
    whole = metric.sums(texts, references)
    parts = [metric.sums([text], [reference]) for text, reference in zip(texts, references, strict=True)]
    assert whole == np.sum(parts, axis=0).tolist()


def test_finds_the_words_of_rouge_score_in_ascii_texts() -> None:
    generated, reference = "The Cat's 3.5 mats, isn't_it?", "the cat sat on 3 mats; isn't it"
    ours, theirs = rouge([generated], [reference]), RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, generated)
    assert ours == {name: pytest.approx(score.fmeasure) for name, score in theirs.items()}
    assert 0.4 < ours["rouge1"] < 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, WORLD_1", ["hello", "world", "1"]),
        ("我爱NLP 2024。", ["我", "爱", "nlp", "2024"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("e\u0301te\u0301", ["\u00e9t\u00e9"]),
        ("コーヒー", ["コ", "ー", "ヒ", "ー"]),
    ],
)
def test_divides_texts_into_words(text: str, words: list[str]) -> None:
    assert unicode_words(text) == words


def test_answers_without_blanks_share_characters() -> None:
    assert exact_match_and_f1("北京市", ["北京市"]) == (1, 1)
    assert exact_match_and_f1("北京", ["北京市"]) == (0, pytest.approx(0.8))
    assert exact_match_and_f1("the Beijing city", ["Beijing"]) == (0, pytest.approx(2 / 3))
