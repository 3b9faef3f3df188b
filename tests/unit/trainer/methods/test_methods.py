"""Every method of the document has an implementation."""

from __future__ import annotations

import pytest

from finetune_trainer.config.methods import METHODS, MethodSpec
from finetune_trainer.methods import create_method


@pytest.mark.parametrize("name", METHODS)
def test_creates_the_method_with_its_options(name: str) -> None:
    method = create_method(MethodSpec(type=name))
    assert type(method).__name__ == name
    assert method.config == METHODS[name]()
