"""The preview in a terminal, and in a file."""

from __future__ import annotations

import io

from rich.console import Console
from tests.support.previews import preview

from finetune_trainer.preview.report import DataPreview
from finetune_trainer.preview.terminal import print_preview

EXPECTED = """\
tiny: CausalLM, Full; the first 2,000 rows

Sources
  data.train[0]   file://rows.csv: CSV, 1 file, delimiter ;, columns text from 'the sky is '
                  the delimiter was found in the header
                  only the first 2,000 rows of about 10,000 were read

Training data
  rows            2,000 rows became 500 sequences of 480,000 tokens
                  3 (0.1%) truncated
                  1 (0.1%) dropped
  lengths         shortest 4, median 240, 95 % up to 900, longest 1,024 (data.maxLength 1,024)
  packing         4.0 documents in a sequence, which fill 93.8% of its 1,024 tokens
  tokens              4 to 513  ████████████████████████████████████████  1,500
                  514 to 1,024  █████████████                               499
  labels                  yes  ████████████████████████████████████████  75.0%
                   the sky is  █████████████                             25.0%

Checks
  leakage         not checked, as there is no evaluation data
  personalData    not checked, as data.checks.personalData is Ignore
  unlearnable     nothing found
  truncation      4 of 2,000 training rows (0.2 %) longer than maxLength: the first is rows.csv:9;
                  cut or dropped
  duplicates      nothing found
  nearDuplicates  nothing found

Tokens of 100 sequences
  trained on      48,000 of 96,000 tokens (50.0%)
  special tokens  </s> (eos): 100 seen, 100 trained on

Run
  steps           about 938: 3.00 epochs of 312.5 steps
  a step          8 sequences, 7,680 tokens on average
  tokens          about 7,203,840 in the whole run

Warnings
                  something to know: do this

First rows, as the model gets them: «trained on», only read
sequence 0, 4 tokens ───────────────────────────────────────────────────────────────────────────────
document 1 (rows.csv:2)
  the sky is «blue»
document 2
  «[MASK] → sky»
"""


def printed(shown: DataPreview, width: int = 100, **options: object) -> str:
    output = io.StringIO()
    print_preview(shown, "tiny", Console(file=output, width=width, **options))  # type: ignore[arg-type]
    return output.getvalue()


def test_marks_what_is_trained_on_in_a_file() -> None:
    text = printed(preview("the sky is "))
    assert "\n".join(line.rstrip() for line in text.splitlines()) + "\n" == EXPECTED
    assert max(map(len, text.splitlines())) <= 100


def test_colors_what_is_trained_on_in_a_terminal() -> None:
    text = printed(preview("the sky is "), force_terminal=True, color_system="standard", legacy_windows=False)
    assert "\x1b[90mthe sky is \x1b[0m\x1b[1;32mblue\x1b[0m" in text
    assert "«" not in text


def test_data_cannot_control_the_terminal() -> None:
    text = printed(preview("a\x1b[2Jb\u202ec\x07 [bold]d[/bold]"))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "a\\u001b[2Jb\\u202ec\\u0007 [bold]d[/bold]«blue»" in text
