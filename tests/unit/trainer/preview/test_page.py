"""The page of a preview: it shows everything, loads nothing and runs nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from tests.support.previews import SCRIPT, preview

from finetune_trainer.objectives.description import Block, Picture
from finetune_trainer.preview.page import render_page
from finetune_trainer.preview.report import ShownSequence


class Elements(HTMLParser):
    """Collects the names, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_data_is_text_and_never_markup() -> None:
    page = render_page(preview(SCRIPT), name=SCRIPT)
    elements = Elements(page)
    assert "script" not in elements.names
    assert elements.text.count(SCRIPT) >= 5, "in the title, as a column, as a label and as the text of a row"
    quoted = Elements(render_page(preview('" onload="alert(1)'), name='"'))
    assert not [name for name, _ in quoted.attributes if name.startswith("on")]


def test_nothing_is_loaded() -> None:
    elements = Elements(render_page(preview(), "tiny"))
    addresses = [value for name, value in elements.attributes if name in ("src", "href")]
    assert addresses == []
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in elements.attributes


def test_trained_and_predicted_tokens_have_their_classes() -> None:
    page = render_page(preview("the sky is "), "tiny")
    assert '<span class="">the sky is </span><span class="trained">blue</span>' in page
    assert '<span class="trained special">[MASK]</span><span class="target">sky</span>' in page
    assert "the first 2,000 rows" in page
    assert re.search(r"This page contains rows of the data", page)


def test_images_are_part_of_the_page() -> None:
    blocks = [Block(name="image", picture=Picture(width=2, height=3, png="AAAA"))]
    page = render_page(preview(shown=[ShownSequence(index=0, tokens=0, blocks=blocks)], collated=None), "tiny")
    assert '<img src="data:image/png;base64,AAAA" alt="2 x 3 pixels">' in page


def test_a_page_without_rows_does_not_mention_them() -> None:
    page = render_page(preview(shown=[]), "tiny")
    assert "contains rows" not in page
    assert "First rows" not in page
