"""Every section with an address is found, wherever it stands, and what is not ours is left alone."""

from __future__ import annotations

from finetune_trainer.config.uris import dotted_path, uri_references


def test_all_places() -> None:
    document = {
        "model": {"source": "hf://a/b", "config": {"source": "not an address"}},
        "data": {"train": [{"source": "file://a"}, {"source": "s3://b/c", "credentials": "keys"}]},
        "method": {"lora": {"frozenAdapters": [{"source": "pvc://d"}]}, "rank": 8},
        "checkpoint": {"storage": "s3://e"},
        "export": {"credentials": "others"},
    }
    found = {
        dotted_path(address.where): (address.uri, address.credentials, address.writes)
        for address in uri_references(document, "spec")
    }
    assert found == {
        "spec.model": ("hf://a/b", None, False),
        "spec.data.train[0]": ("file://a", None, False),
        "spec.data.train[1]": ("s3://b/c", "keys", False),
        "spec.method.lora.frozenAdapters[0]": ("pvc://d", None, False),
        "spec.checkpoint": ("s3://e", None, True),
        "spec.export": (None, "others", False),
    }
