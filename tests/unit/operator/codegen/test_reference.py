"""The generated reference."""

from __future__ import annotations

from tests.support.schema_nodes import NODES

from finetune_operator.codegen.reference import render_reference


def test_lists_every_field() -> None:
    page = render_reference()
    fields = [path.rpartition(".")[2] for path in NODES if path.startswith((".spec.", ".status.")) and not path.endswith("[]")]
    assert [name for name in fields if f"| `{name}` |" not in page] == []
