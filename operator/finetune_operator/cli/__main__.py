"""Runs the `finetune` command as `python -m finetune_operator.cli`."""

import sys

from finetune_operator.cli.main import main

sys.exit(main())
