"""`python -m finetune_operator`: run the operator."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys

from finetune_operator.controller import handlers
from finetune_operator.controller.manager import Manager
from finetune_operator.settings import Settings


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger and message; a traceback if there is one."""
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure_logging(settings: Settings) -> None:
    """One handler on standard error; kopf says only what is wrong."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else plain)
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    if settings.log_level != "DEBUG":
        logging.getLogger("kopf").setLevel(logging.WARNING)


def main() -> None:
    """Run until SIGTERM."""
    settings = Settings.read(sys.argv[1:], os.environ)
    configure_logging(settings)
    asyncio.run(handlers.run(Manager(settings)))


if __name__ == "__main__":
    main()
