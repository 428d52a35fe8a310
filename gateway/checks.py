"""Checks whether a valid configuration works on this machine, for ``session-gateway check``."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.addresses import is_loopback
from gateway.config import AwsSettings, ConfigError, Configuration, RouteSettings, Settings
from gateway.config.tomlfile import Location
from gateway.formats.presets import FORMATS
from gateway.formats.templates import tells_history
from gateway.logo import Logo, LogoError
from gateway.sagemaker.checks import platform_problems
from gateway.security.certificates import Certificate, CertificateError
from gateway.security.keys import KeyFileError, read
from gateway.security.keysets import FileKeys, KeysUnavailable, fetch
from gateway.security.tokens import Secret
from gateway.session.policy import Opening
from gateway.session.storage import StoreUnavailable
from gateway.storeconfig import open_store


class Finding(NamedTuple):
    """A problem.

    Attributes:
        text: Where the setting is, what is wrong, and what to do.
        certain: Whether the gateway can't work with it; otherwise it may be intended.
    """

    text: str
    certain: bool


def clients(settings: Settings) -> str:
    """Describe who may connect."""
    auth = settings.auth
    shown = [
        what
        for what, wanted in (
            ("a key ([auth.keys])", auth.keys),
            ("a token ([auth.jwt])", auth.jwt),
        )
        if wanted is not None
    ]
    if not shown:
        return "anyone on this machine, and anyone that a proxy on it lets through (no [auth])"
    return f"anyone with {' or '.join(shown)}"


def summary(settings: Settings) -> Iterator[str]:
    """Summarise a configuration: its routes, and who may connect."""
    for number, (name, route) in enumerate(settings.routes.items()):
        note = " (default)" if number == 0 else ""
        opened = _opened(route)
        keeper = "the gateway" if route.sends_history else "the model"
        yield (
            f"route {name}{note}: endpoint {route.endpoint_name}, {opened}, "
            f"conversation kept by {keeper}"
        )
    yield f"clients: {clients(settings)}"


def _opened(route: RouteSettings) -> str:
    if route.mode == "async":
        return "asynchronous"
    match route.profile.opening:
        case Opening.NONE:
            return "no sessions"
        case Opening.CALL if route.open == "on_connect":
            return "session opened on connect"
        case _:
            return "session opened by the first message"


async def findings(configuration: Configuration, *, offline: bool) -> list[Finding]:
    """Find problems on this machine.

    Args:
        configuration: The settings and their sources.
        offline: Skip credentials, key sets and the store, which may need the network.
    """
    aws, sources = configuration.settings.aws, configuration.sources
    found = [
        *_server(configuration),
        *_files(configuration),
        *_routes(configuration),
        *_later(configuration),
    ]
    if not offline:
        found += [finding async for finding in _addresses(configuration)]
    found += [finding async for finding in _store(configuration, offline=offline)]
    for problem in await platform_problems(
        region=aws.region,
        profile=aws.profile,
        endpoint_url=aws.endpoint_url,
        credentials=not offline,
    ):
        level = "" if problem.certain else "warning: "
        text = (
            sources.told(("aws", problem.about), problem.text, level=level)
            if problem.about in AwsSettings.model_fields
            else f"{level}{problem.text}"
        )
        found.append(Finding(text, problem.certain))
    return found


def _server(configuration: Configuration) -> Iterator[Finding]:
    server = configuration.settings.server
    if server.trusted_proxies and server.public_url is None:
        text = (
            "without public_url, pages of every host name that leads to the proxy may connect, "
            "including names that others have pointed at it; set public_url, such as "
            '"https://chat.example.com"'
        )
        yield _warning(configuration, ("server", "trusted_proxies"), text)


def _keys(configuration: Configuration) -> Iterator[Finding]:
    """Check the file of API keys."""
    location = ("auth", "keys", "file")
    settings = configuration.settings
    if settings.auth.keys is None:
        return
    try:
        keys = read(settings.auth.keys.file)
    except KeyFileError as error:
        yield Finding(configuration.sources.told(location, str(error)), certain=True)
        return
    if not keys:
        text = "contains no keys, so nobody can connect; add one with `session-gateway key add`"
        yield _warning(configuration, location, text)
    for name, entry in keys.items():
        for route in {*(entry.routes or ())} - settings.routes.keys():
            text = f"[{name}] may use route {route}, which does not exist"
            yield _warning(configuration, location, text)


def _files(configuration: Configuration) -> Iterator[Finding]:
    """Check the files that are read at startup."""
    settings, told = configuration.settings, configuration.sources.told
    yield from _keys(configuration)
    if settings.page.enabled and settings.page.logo is not None:
        try:
            Logo(settings.page.logo)
        except LogoError as error:
            yield Finding(told(("page", "logo"), str(error)), certain=True)
    jwt = settings.auth.jwt
    try:
        if jwt is not None and jwt.secret_file is not None:
            Secret(jwt.secret_file)
        elif jwt is not None and jwt.jwks_file is not None:
            FileKeys(jwt.jwks_file)
    except (KeysUnavailable, ValueError) as error:
        key = "jwks_file" if isinstance(error, KeysUnavailable) else "secret_file"
        yield Finding(told(("auth", "jwt", key), str(error)), certain=True)
    tls = settings.tls
    if tls is None:
        return
    try:
        Certificate(tls.cert_file, tls.key_file)
    except CertificateError as error:
        key = "cert_file" if error.file == tls.cert_file else "key_file"
        yield Finding(told(("tls", key), str(error)), certain=True)


async def _addresses(configuration: Configuration) -> AsyncIterator[Finding]:
    """Check the URLs that are fetched at run time."""
    jwt = configuration.settings.auth.jwt
    if jwt is not None and jwt.jwks_url is not None:
        try:
            await fetch(str(jwt.jwks_url))
        except KeysUnavailable as error:
            text = f"keys can't be fetched ({error}); until they can, every token is refused"
            yield _warning(configuration, ("auth", "jwt", "jwks_url"), text)


async def _store(configuration: Configuration, *, offline: bool) -> AsyncIterator[Finding]:
    try:
        async with open_store(configuration.settings) as store:
            if not offline:
                await store.owned("", 1)
    except ConfigError as error:
        location = ("store", "encryption_key_file")
        yield Finding(configuration.sources.told(location, str(error)), certain=True)
    except StoreUnavailable as error:
        text = f"can't be used ({error}); until it can, no session can be opened"
        yield _warning(configuration, ("store", "url"), text)


def _routes(configuration: Configuration) -> Iterator[Finding]:
    for name, route in configuration.settings.routes.items():
        if route.takes_json_only:
            text = (
                "this route takes only JSON, and has no `request`, nor a `format` with one, that "
                "turns text into JSON; so it refuses text, which the chat page, the terminal chat "
                "and `send(text)` send"
            )
            yield _warning(configuration, ("routes", name, "content_type"), text)
        is_chat = route.format and tells_history(FORMATS[route.format].request)
        if is_chat and route.history is None and not route.sends_history:
            text = (
                "contains neither $messages nor $transcript, so the model gets only the newest "
                'message; if the model keeps the conversation itself, set history = "model"'
            )
            yield _warning(configuration, ("routes", name, "request"), text)
        if route.sends_history and route.body_format.text is None:
            text = (
                "the gateway keeps the conversation with the model's raw replies; if they are "
                "JSON, set `text` (or a `format`) to extract the text from them"
            )
            yield _warning(configuration, ("routes", name, "request"), text)


def _later(configuration: Configuration) -> Iterator[Finding]:
    """Check asynchronous routes."""
    settings = configuration.settings
    for name, route in settings.routes.items():
        if route.mode != "async":
            continue
        if settings.store.kind == "memory":
            text = (
                "turns that wait for a reply when the gateway stops are lost; with [store] "
                'kind = "valkey" they survive restarts, and other replicas can take them over'
            )
            yield _warning(configuration, ("routes", name, "mode"), text)
        aws = settings.aws
        local = urlsplit(aws.endpoint_url or "").hostname
        if local and is_loopback(local) and aws.s3_endpoint_url is None:
            text = (
                "is on this machine, but the route's objects would be looked up at AWS; set "
                "s3_endpoint_url too (`session-gateway local --asynchronous` prints it)"
            )
            yield _warning(configuration, ("aws", "endpoint_url"), text)
        where = re.match(r"https://sqs\.([a-z0-9-]+)\.", route.notification_queue_url or "")
        region = aws.region
        if where and region and where[1] != region and aws.sqs_endpoint_url is None:
            text = (
                f"the queue is in {where[1]}, but the gateway calls {region}, so it gets no "
                "notifications and polls for replies instead; use a queue in the same region"
            )
            yield _warning(configuration, ("routes", name, "notification_queue_url"), text)


def _warning(configuration: Configuration, location: Location, text: str) -> Finding:
    return Finding(configuration.sources.told(location, text, level="warning: "), certain=False)
