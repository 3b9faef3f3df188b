"""Finds every section with a URI and ignores free-form fields."""

from __future__ import annotations

from finetune_trainer.config.uris import dotted_path, uri_references


def test_finds_all_uris() -> None:
    document = {
        "model": {"source": "hf://a/b", "config": {"source": "not a URI"}},
        "data": {"train": [{"source": "file://a"}, {"source": "s3://b/c", "credentials": "keys"}]},
        "method": {"lora": {"frozenAdapters": [{"source": "pvc://d"}]}, "rank": 8},
        "checkpoint": {"storage": "s3://e"},
        "export": {"credentials": "others"},
    }
    references = {
        dotted_path(reference.where): (reference.uri, reference.credentials, reference.writes)
        for reference in uri_references(document, "spec")
    }
    assert references == {
        "spec.model": ("hf://a/b", None, False),
        "spec.data.train[0]": ("file://a", None, False),
        "spec.data.train[1]": ("s3://b/c", "keys", False),
        "spec.method.lora.frozenAdapters[0]": ("pvc://d", None, False),
        "spec.checkpoint": ("s3://e", None, True),
        "spec.export": (None, "others", False),
    }
