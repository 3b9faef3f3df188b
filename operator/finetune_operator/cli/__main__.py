"""`python -m finetune_operator.cli`: the `finetune` command."""

import sys

from finetune_operator.cli.main import main

sys.exit(main())
