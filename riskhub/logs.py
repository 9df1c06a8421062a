"""How processes tell what happens: a line each, JSON for programs or readable for people.

Each entry point calls `configure` once; before, lines are readable and nothing else is changed.
`tell` is for what a process does, `logging` for what went wrong in it and for libraries; both go
through the same processors. What a line is about is bound by `about`, and nothing secret passes.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import structlog
from pydantic import BaseModel, SecretStr
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from riskhub.masking import Mask
from riskhub.settings import Settings

# What is told and is no good news; all else is `info`.
_LEVELS = {
    "failed": "warning",
    "waits": "warning",
    "not delivered": "warning",
    "stream away": "warning",
    "without database": "warning",
    "prices can't be read": "warning",
    "commit came too late": "warning",
    "dead letter": "error",
    "dead letter is only in the table": "error",
    "history lost": "error",
}
# They tell each request, or each reconnect, as news.
_CHATTY = ("aiokafka", "httpx", "httpcore", "botocore", "boto3", "urllib3", "alembic", "asyncio")
# What one of them says over and over (a broker that is away, 70 lines a second) is said so seldom.
_SAID_AGAIN_SEC = 60.0
_MOST_SAID = 1_000

Fields = Mapping[str, Any]

_about: ContextVar[Callable[[], Fields] | None] = ContextVar("about", default=None)
_transform = ExceptionDictTransformer(show_locals=False, use_rich=False, max_frames=30)


class _Out:
    """Writes lines to stdout as it is when they are written; a line is one write."""

    def msg(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    debug = info = warning = error = critical = msg


class _Sparing(logging.Filter):
    """Lets a chatty library say the same once in a while."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in _CHATTY:
            return True
        now, what = self._monotonic(), (record.name, record.getMessage())
        if now - self._said.get(what, -_SAID_AGAIN_SEC) < _SAID_AGAIN_SEC:
            return False
        if len(self._said) >= _MOST_SAID:
            self._said.clear()
        self._said[what] = now
        return True


class _Handler(logging.Handler):
    """Ours among the handlers of the root: in text what went wrong goes to stderr, as ever."""

    def __init__(self, formatter: logging.Formatter, *, to_stdout: bool) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.addFilter(_Sparing())
        self._to_stdout = to_stdout

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream = sys.stdout if self._to_stdout else sys.stderr
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:  # noqa: BLE001 - as each handler of the standard library
            self.handleError(record)


def configure(settings: Settings) -> None:
    """Have this process log as the settings say, from now on. Again: as these settings say."""
    global _logger  # noqa: PLW0603 - a process has one log
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and settings.profile == "prod"
    )
    mask = Mask(set(_secrets_of(settings)))
    level = settings.log_level.upper()
    _logger = _logger_of(_native(mask, as_json=as_json), level)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _Handler):
            root.removeHandler(handler)
    root.addHandler(_Handler(_formatter(mask, as_json=as_json), to_stdout=as_json))
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    if as_json:
        _tell_the_uncaught()


def tell(event: str, **fields: object) -> None:
    """Tell what happened, with its figures by name; the name of what happened gives the level."""
    getattr(_logger, _LEVELS.get(event, "info"))(event, **fields)


def tell_error(event: str, **fields: object) -> None:
    """As `tell`, at level `error` whatever happened."""
    _logger.error(event, **fields)


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Within it, what this task or thread logs is about this: ``event_id``, ``world``."""
    before = _about.get()
    bound = _about.set(lambda: {**(before() if before else {}), **fields})
    try:
        yield
    finally:
        _about.reset(bound)


def bind(fields: Callable[[], Fields]) -> Token[Callable[[], Fields] | None]:
    """Until `unbind`, what this task logs is about what the function says as a line is logged."""
    return _about.set(fields)


def unbind(bound: Token[Callable[[], Fields] | None]) -> None:
    """As it was before `bind`."""
    _about.reset(bound)


def exception_of(error: BaseException, *, with_words: bool = True) -> list[dict[str, Any]]:
    """An exception and what it came of: its type, what it says, and where it was raised.

    Args:
        with_words: without, what it says is left out: it may quote a payload.
    """
    told = _transform((type(error), error, cast(TracebackType, error.__traceback__)))
    return [
        {
            "type": one["exc_type"],
            **({"says": one["exc_value"]} if with_words else {}),
            "frames": [f"{at['filename']}:{at['lineno']} in {at['name']}" for at in one["frames"]],
        }
        for one in told
    ]


# -- processors -------------------------------------------------------------------------------


def _native(mask: Mask, *, as_json: bool) -> list[Processor]:
    if as_json:
        return [_add_about, structlog.processors.add_log_level, _Render(mask, as_json=True)]
    return [_add_about, _Render(mask, as_json=False)]


def _formatter(mask: Mask, *, as_json: bool) -> logging.Formatter:
    return ProcessorFormatter(
        foreign_pre_chain=[
            ExtraAdder(),
            _without_message,
            _add_about,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
        ],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            _Render(mask, as_json=as_json),
        ],
    )


def _without_message(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    """Other handlers' formatters leave it in the record; we have it as the event."""
    fields.pop("message", None)
    fields.pop("asctime", None)
    return fields


def _add_about(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    if (said := _about.get()) is not None:
        for name, value in said().items():
            fields.setdefault(name, value)
    return fields


class _Render:
    """The end of both chains: a line of the fields, masked."""

    def __init__(self, mask: Mask, *, as_json: bool) -> None:
        self._mask = mask
        self._line = _as_json if as_json else _as_text
        self._as_json = as_json

    def __call__(self, _logger: Any, _method: str, fields: EventDict) -> str:
        now = datetime.now(UTC)
        error = fields.pop("exc_info", None)
        if isinstance(error, tuple):
            error = error[1]
        if isinstance(error, BaseException):
            fields["exception"] = exception_of(error)
        at = now.isoformat(timespec="milliseconds" if self._as_json else "seconds")[:-6] + "Z"
        event = fields.pop("event")
        told: dict[str, Any] = {"at": at, "event": self._mask(event)}
        if "level" in fields:
            told["level"] = fields.pop("level")
        return self._line({**told, **self._mask(fields)})


def _as_json(fields: dict[str, Any]) -> str:
    try:
        return json.dumps(fields, allow_nan=False)
    except ValueError:  # JSON has no such numbers: they become words
        return json.dumps(json.loads(json.dumps(fields), parse_constant=str))


def _as_text(fields: dict[str, Any]) -> str:
    """As ``at=2026-01-31T21:00:00Z event="no budgets" reason=portfolio_too_old``."""
    exception = fields.pop("exception", ())
    line = " ".join(f"{name}={_as_value(value)}" for name, value in fields.items())
    return "\n".join([line, *_lines_of(exception)])


def _lines_of(exception: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for one in exception:
        yield f"  {one['type']}" + (f": {one['says']}" if "says" in one else "")
        for frame in one["frames"]:
            yield f"    {frame}"


def _as_value(value: object) -> str:
    text = f"{value:.10g}" if isinstance(value, float) else str(value)
    if text and not set(text) & set(' ="\n'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


# -- the process ------------------------------------------------------------------------------


def _logger_of(processors: list[Processor], level: str) -> FilteringBoundLogger:
    return cast(
        FilteringBoundLogger,
        structlog.wrap_logger(
            _Out(),
            processors=processors,
            wrapper_class=structlog.make_filtering_bound_logger(level),
            context_class=dict,
        ).bind(),
    )


def _tell_the_uncaught() -> None:
    """What ends a process, or a thread of it, as a line like all others; unless others tell it."""
    log = logging.getLogger("riskhub")

    def uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("the process ends", exc_info=error)

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        log.critical("a thread ends", exc_info=args.exc_value)

    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = uncaught_in_thread


def _secrets_of(settings: Any) -> Iterator[str]:
    """Each secret of the settings, with the passwords of their URLs."""
    if isinstance(settings, SecretStr):
        yield settings.get_secret_value()
    elif isinstance(settings, str) and "://" in settings:
        try:
            password = urlsplit(settings).password
        except ValueError:
            return
        if password:
            yield from (password, unquote(password))
    elif isinstance(settings, BaseModel):
        yield from _secrets_of(dict(settings))
    elif is_dataclass(settings):
        yield from _secrets_of(
            {field.name: getattr(settings, field.name) for field in fields(settings)}
        )
    elif isinstance(settings, Mapping):
        for value in settings.values():
            yield from _secrets_of(value)
    elif isinstance(settings, tuple):
        for value in settings:
            yield from _secrets_of(value)


# Before `configure`: readable, by the names and forms of what is secret alone.
_logger = _logger_of(_native(Mask(), as_json=False), "INFO")
