"""Where the gateway's log lines go, and in which form."""

import logging
import sys
from typing import Any

import structlog


def configure_logging(level: str, form: str) -> None:
    """Log to standard error, the gateway's own lines and the libraries' alike.

    Args:
        level: The least level that is logged.
        form: ``console`` for people, ``json`` for machines.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        else [
            # The default shows local variables where rich is installed: bodies and credentials.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.addFilter(_without_the_sdks_tracebacks)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    logging.getLogger("gateway").setLevel(level)


def _without_the_sdks_tracebacks(record: logging.LogRecord) -> bool:
    """Theirs are of credentials, and quote what a program that was to give them has written."""
    sdk = record.name.startswith(("botocore.", "aiobotocore."))
    if sdk and record.exc_info and record.exc_info[0]:
        record.msg = f"{record.msg} ({record.exc_info[0].__name__})"
        record.exc_info = None
    return True


def log_to_logging() -> None:
    """Have the gateway's lines go to `logging`, each as one text, as a library's do.

    An application that has configured structlog gets them there instead.
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
    """The arguments of a logging call: the event, what it says, and the exception."""
    exception = {"exc_info": event.pop("exc_info")} if "exc_info" in event else {}
    text = str(event.pop("event"))
    return ("%s", f"{text} {_pairs(logger, name, event)}".rstrip()), exception
