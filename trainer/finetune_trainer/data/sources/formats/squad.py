"""Flattens SQuAD's articles of paragraphs with questions (Rajpurkar et al. 2016, arXiv:1606.05250; 2018, arXiv:1806.03822)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def is_article(value: Any) -> bool:
    """Whether the object is an article: paragraphs with a context and questions."""
    match value:
        case {"paragraphs": [{"context": str(), "qas": list()}, *_]} | {"paragraphs": []}:
            return True
    return False


def questions(article: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The place of each question in the article, and a record with title, context, question, id and answers.

    A question that is marked as impossible has no answers, only plausible ones.
    """
    for number, paragraph in enumerate(article["paragraphs"]):
        for position, question in enumerate(paragraph["qas"]):
            record = {"title": article.get("title", ""), "context": paragraph["context"], **question}
            if question.get("is_impossible"):
                record["answers"] = []
            yield f"paragraphs[{number}].qas[{position}]", record
