"""Sets up a process's log: JSON lines in `<data_dir>/logs/<process>.log`, readable lines on its standard error."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

import structlog

_BYTES_PER_FILE = 20 * 1024 * 1024
_FILES_KEPT = 3


def configure(data_dir: Path, process: str, level: str) -> None:
    """Send what structlog and the standard library log to the same two places.

    Called once, by a process's own entry point.
    """
    folder = data_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )  # fmt: skip
    file = logging.handlers.RotatingFileHandler(
        folder / f"{process}.log", maxBytes=_BYTES_PER_FILE, backupCount=_FILES_KEPT
    )
    file.setFormatter(_formatter(shared, structlog.processors.JSONRenderer()))
    console = logging.StreamHandler(sys.stderr)
    # Not structlog's own way with rich: it shows every variable, and among them are keys and tokens.
    readable = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    console.setFormatter(_formatter(shared, readable))
    root = logging.getLogger()
    root.handlers[:] = [file, console]
    root.setLevel(level.upper())
    for name in ("uvicorn.error", "httpx", "httpcore", "alembic", "sqlalchemy", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)  # their information is noise beside ours


def _formatter(shared: list[structlog.typing.Processor], last: structlog.typing.Processor) -> logging.Formatter:
    final: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if isinstance(last, structlog.processors.JSONRenderer):
        final.append(structlog.processors.format_exc_info)
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*final, last])
