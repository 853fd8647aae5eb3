# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs of every process: colours for a terminal, one JSON object per line for everything else.

`bind(vm="demo")` puts what it is given on every line that the current task logs; `trap_in_hand` adds the vCPU and the sequence
of the trap that a handler works on.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, TextIO

from splitvisor.process.quiet_import import without

# structlog.dev imports rich when it finds it, and every service pays 60 ms at its start for tracebacks that are rendered plain.
with without("rich"):
    import structlog

from structlog.contextvars import bind_contextvars as bind
from structlog.contextvars import clear_contextvars as clear

__all__ = ["LogLevel", "bind", "clear", "configure", "get_logger", "trap_in_hand"]

trap_in_hand: ContextVar[tuple[int, int] | None] = ContextVar("trap_in_hand", default=None)
"""(vCPU, sequence) of the trap that the current task handles. Set for every trap, so it costs less than bind()."""


class LogLevel(StrEnum):
    """What is logged: this level and those after it."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The level as Python's logging counts."""
        return logging.getLevelNamesMapping()[self.name]


class _LossyStream:
    """A stream that never raises: the reader of the log may end before the service does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return


def configure(level: LogLevel, service: str, stream: TextIO | None = None) -> None:
    """Send this process's logs, those of libraries included, to stream (default: stderr).

    service stands on every line.
    """
    target = stream if stream is not None else sys.stderr
    terminal = target.isatty()
    lossy: Any = _LossyStream(target)
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_trap,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if terminal else "iso", utc=not terminal),
        structlog.processors.StackInfoRenderer(),
        _name_service(service),
    ]
    renderer: structlog.types.Processor
    if terminal:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level.number),
        logger_factory=structlog.WriteLoggerFactory(file=lossy),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lossy)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level.number, handlers=[handler], force=True)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a module; its name stands on each line as `module`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return logger


def _name_trap(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    trap = trap_in_hand.get()
    if trap is not None:
        event.setdefault("vcpu", trap[0])
        event.setdefault("seq", trap[1])
    return event


def _name_service(service: str) -> structlog.types.Processor:
    def name_service(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        event["service"] = service
        return event

    return name_service
