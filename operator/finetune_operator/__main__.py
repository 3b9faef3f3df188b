"""`python -m finetune_operator`: run the operator."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys

from finetune_operator.controller import handlers
from finetune_operator.controller.manager import Manager
from finetune_operator.profiles import ProfileError, Profiles
from finetune_operator.settings import Settings


class JsonFormatter(logging.Formatter):
    """Formats each log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """A JSON object with time, level, logger and message, and with the traceback of an exception."""
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
    """Log to standard error; unless the level is DEBUG, kopf logs warnings and errors only."""
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    if settings.log_level != "DEBUG":
        logging.getLogger("kopf").setLevel(logging.WARNING)


def main() -> None:
    """Run the operator until SIGTERM."""
    settings = Settings.from_arguments(sys.argv[1:], os.environ)
    configure_logging(settings)
    try:
        profiles = Profiles.read(settings.profiles) if settings.profiles else Profiles()
    except (OSError, ProfileError) as error:
        sys.exit(f"--profiles: {settings.profiles}: {error}")
    asyncio.run(handlers.run(Manager(settings, profiles)))


if __name__ == "__main__":
    main()
