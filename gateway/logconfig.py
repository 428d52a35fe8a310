"""Configures the output and format of the gateway's log."""

import logging
import os
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator
from typing import Any

import msgspec
import structlog

from gateway.logs import Line

STDERR = 2


class _Lines:
    """Writes rendered lines to standard error. `logging` would take twice as long as everything
    else together.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def msg(self, line: str) -> None:
        try:
            sys.stderr.write(f"{line}\n")
        except (OSError, ValueError):  # standard error is closed
            return

    debug = info = warning = error = critical = msg


def _json_logger(level: int, replica: str | None) -> type[structlog.typing.FilteringBoundLogger]:
    """Create a logger class with a fast path for frequent lines: one for each turn.

    The processors would produce the same output, but take five times as long.

    Args:
        level: Minimum level.
        replica: Name of this replica.
    """
    base: Any = structlog.make_filtering_bound_logger(level)
    encode, clock = msgspec.json.Encoder().encode, time.time_ns
    second = date = ""

    class JsonLogger(base):  # type: ignore[misc]
        def quick(self, line: Line) -> None:
            """See `gateway.logs.log_quickly`."""
            nonlocal second, date
            microseconds = str(clock() // 1000)
            now = microseconds[:-6]
            if now != second:
                second, date = now, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(now)))
            line.timestamp = f"{date}.{microseconds[-6:]}Z"
            line.logger = self._logger.name
            line.replica = replica
            try:
                os.write(STDERR, encode(line) + b"\n")
            except OSError:  # standard error is closed
                return

    return JsonLogger


def configure_logging(level: str, form: str, replica: str | None = None) -> None:
    """Log to standard error, both the gateway's and the libraries' lines.

    Args:
        level: Minimum level.
        form: ``console`` for people, ``json`` for machines.
        replica: Name of this replica, if several write to one place.
    """

    def sign(_logger: Any, _name: str, event: structlog.typing.EventDict) -> Any:
        return event if replica is None else {"replica": replica, **event}

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        sign,
    ]
    least = logging.getLevelNamesMapping()[level]
    wrapper: Any
    renderer: structlog.typing.Processor
    if form == "json":
        renderer, wrapper = structlog.processors.JSONRenderer(), _json_logger(least, replica)
    else:
        wrapper = structlog.make_filtering_bound_logger(least)
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    rendered: list[structlog.typing.Processor] = [
        structlog.processors.ExceptionRenderer(_traceback),
        renderer,
    ]
    structlog.configure(
        processors=[*shared, *rendered],
        logger_factory=_Lines,
        wrapper_class=wrapper,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *rendered,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    logging.getLogger("gateway").setLevel(level)


def _traceback(exc_info: structlog.typing.ExcInfo) -> str:
    """Format an exception and those that it was raised from, without their messages.

    A message may quote a body, a key, or the output of a program that provides credentials.
    Messages of the operating system are safe.
    """
    return "".join(_lines(exc_info[1])).rstrip()


def _lines(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _lines(before)
        yield "\nThen:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    said = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    yield f"{type(error).__qualname__}{said}\n"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield textwrap.indent("".join(_lines(each)), "  ")


def log_to_logging() -> None:
    """Log to `logging` as a library does, each line as one text.

    If the application has configured structlog, lines go there instead.
    """
    if not structlog.is_configured():
        structlog.configure(
            processors=[structlog.stdlib.filter_by_level, _line],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )


_pairs = structlog.processors.KeyValueRenderer(sort_keys=True)


def _line(
    logger: Any, name: str, event: structlog.typing.EventDict
) -> tuple[tuple[str, str], dict[str, Any]]:
    """Return the arguments of a logging call: event, values and exception."""
    exception = {"exc_info": event.pop("exc_info")} if "exc_info" in event else {}
    text = str(event.pop("event"))
    return ("%s", f"{text} {_pairs(logger, name, event)}".rstrip()), exception
