"""The composition root: builds everything from the settings, and owns its life."""

import contextlib
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp

from gateway.admin.console import Console
from gateway.admin.fleet import Alone, Fleet, Others
from gateway.admin.watching import Watch
from gateway.admission import Admission
from gateway.authconfig import verifiers
from gateway.budget import ByteBudget
from gateway.config import AwsSettings, ConfigError, Settings
from gateway.guard.model import GuardedModel
from gateway.guard.overload import Breaker
from gateway.logo import Logo, LogoError
from gateway.measures import StoreMeasures
from gateway.metricsport import metrics_port
from gateway.replicas.replica import Replica
from gateway.route import Route
from gateway.sagemaker.checks import platform_problems
from gateway.security.door import Door
from gateway.security.limits import LocalAccounts
from gateway.security.reloading import Reloader
from gateway.security.shared import SharedAccounts
from gateway.session.storage import RecordStore
from gateway.sessions import Sessions
from gateway.storeconfig import open_store
from gateway.tally import Tracer
from gateway.telemetry.exposition import metrics_path
from gateway.telemetry.metrics import Metrics, Sources
from gateway.transports.admin import Admin, AdminGate
from gateway.transports.api import Api
from gateway.transports.asgi import PlainAsgi
from gateway.transports.drafts import OPTION_HEADERS, REPLY_HEADERS
from gateway.transports.gate import Gate, Paths
from gateway.transports.hosts import Hosts
from gateway.transports.offers import PageOffer, route_offer
from gateway.transports.open import Connections
from gateway.transports.openai.keeping import Bounds
from gateway.transports.openai.paths import paths
from gateway.transports.openapi import Document
from gateway.transports.origins import Origins
from gateway.transports.pages import ICON_PATH, LOGO_PATH, SecurityHeaders, pages
from gateway.transports.problems import not_found
from gateway.transports.proxies import Proxies
from gateway.transports.tickets import ticket
from gateway.transports.websocket import WebSocketEndpoint
from gateway.upstream import model, runtime, services

log = structlog.stdlib.get_logger("gateway.app")


class Built(NamedTuple):
    """What there is to be served.

    Attributes:
        app: The application.
        sessions: All of them.
        reloader: Reads files again.
        metrics: What they stand at.
        console: What operators do with this process.
    """

    app: ASGIApp
    sessions: Sessions
    reloader: Reloader
    metrics: Metrics
    console: Console


def replica_name(settings: Settings) -> str | None:
    """A name for this process among those that share a store; None where it shares none.

    A process that is started anew is another one: the sessions of the one before are a dead
    replica's.
    """
    if settings.store.kind == "memory":
        return None
    return f"{replica_prefix(settings)}-{secrets.token_hex(4)}"


def replica_prefix(settings: Settings) -> str:
    """How the name of this process begins; all of it where it shares no store."""
    return settings.server.replica or socket.gethostname()


@contextlib.asynccontextmanager
async def build(
    settings: Settings, name: str | None = None, *, embedded: bool = False
) -> AsyncIterator[Built]:
    """The application and its sessions, which end with this context.

    Args:
        settings: All of them.
        name: This process's among those that share a store; it is made where absent.
        embedded: Whether it is another's to say who can reach the application.

    Raises:
        ConfigError: The platform can't be called with these settings.
        OSError: The address of the metrics can't be listened on.
    """
    aws, server = settings.aws, settings.server
    async with contextlib.AsyncExitStack() as stack:
        transport = await stack.enter_async_context(runtime(aws))
        breakers: defaultdict[object, Breaker] = defaultdict(partial(Breaker, time.monotonic))
        later = await stack.enter_async_context(services(settings))
        guards = {
            name: GuardedModel(
                model(name, route, aws, transport, later),
                route.max_turns_in_flight,
                breakers[route.endpoint_name, route.inference_component_name],
                shared=settings.auth.required,
                patience=aws.call_timeout_seconds,
            )
            for name, route in settings.routes.items()
        }
        name = name or replica_name(settings)
        tracers = await stack.enter_async_context(_tracers(settings, name))
        routes = {
            route: Route(each.policy(route, server), guards[route], tracer=tracers.get(route))
            for route, each in settings.routes.items()
        }
        of_store = StoreMeasures()
        store = await stack.enter_async_context(open_store(settings, of_store))
        limits, lease_seconds = settings.limits, settings.store.lease_seconds
        accounts = LocalAccounts(limits.of_principals)
        shared = None
        if name is not None and settings.auth.required:
            accounts = shared = SharedAccounts(name, store, limits.of_principals, lease_seconds)
        sessions = Sessions(
            routes,
            max_sessions=settings.store.max_sessions,
            budget=ByteBudget(server.buffer_bytes),
            quota=accounts if settings.auth.required else None,
            drain_seconds=server.drain_seconds,
            log_turns=server.log_turns,
        )
        reloader = Reloader()
        # Before sessions have their tasks, whose group would wrap what is wrong with a file or the
        # metrics' port.
        keys, tokens = verifiers(settings, sessions.spawn, reloader)
        door = Door(
            keys=keys,
            tokens=tokens,
            tickets=store,
            accounts=accounts,
            connections_per_address=limits.connections_per_address,
            handshakes_per_second=limits.handshakes_per_second,
            all_operate=settings.makes_its_machine_operator and not embedded,
        )
        app, rest, connections, gate = application(settings, sessions, door, store, reloader)
        metrics = Metrics(
            Sources(
                sessions,
                guards,
                connections,
                gate.answered,
                [door.limits_hit, sessions.limits_hit],
                None if name is None else of_store,
            )
        )
        if settings.metrics.port is not None:
            await stack.enter_async_context(metrics_port(settings.metrics, metrics.read))
        elif settings.shows_metrics_to_clients and not embedded:
            # Nor under a name of a proxy's, or one that a page has pointed at this machine.
            path = metrics_path(metrics.read)
            path.app = Hosts(path.app)
            app.routes.append(path)
        console = Console(name or replica_prefix(settings), sessions, metrics.read)
        replica = None
        if name is not None:
            replica = Replica(name, store, sessions, lease_seconds, console.answer)
            sessions.share(replica)
        operators, watch = operating(
            settings,
            console,
            Alone() if replica is None else replica.asking,
            sessions,
            AdminGate(
                door,
                Proxies(server.trusted_proxies),
                server.public_origin,
                authenticated=settings.auth.required,
                answered=gate.answered,
            ),
        )
        rest.routes.extend(operators)
        await stack.enter_async_context(sessions)
        stack.push_async_callback(watch.close)
        tasks = [log_problems(settings.aws), reloader.run(), metrics.watch()]
        if replica is not None:
            tasks.append(replica.run())
            stack.push_async_callback(replica.resign)
        if shared is not None:
            tasks.append(shared.run())
        for task in tasks:
            stack.callback(sessions.spawn(task).cancel)
        yield Built(app, sessions, reloader, metrics, console)


@contextlib.asynccontextmanager
async def _tracers(settings: Settings, replica: str | None) -> AsyncIterator[dict[str, Tracer]]:
    """What traces the turns of each route; nothing where that is not asked for.

    Raises:
        ConfigError: What is needed for it is not installed.
    """
    if settings.traces is None:
        yield {}
        return
    try:
        from gateway.telemetry.traces import TurnTracer, exported  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "[traces]: OpenTelemetry is not installed; pip install 'session-gateway[otel]'"
        ) from None
    traces = settings.traces
    async with exported(traces.endpoint, replica, traces.sample) as tracer:
        yield {
            name: TurnTracer(
                tracer,
                name,
                route.endpoint_name,
                (route.custom_attributes or "") if route.trace_attributes else None,
            )
            for name, route in settings.routes.items()
        }


async def log_problems(aws: AwsSettings) -> None:
    """Say in the log why calls to the platform will fail, as far as that shows without one.

    It can take seconds, since looking for credentials can.
    """
    try:
        problems = await platform_problems(
            region=aws.region, profile=aws.profile, endpoint_url=aws.endpoint_url
        )
    except Exception as error:  # noqa: BLE001 - the gateway is there all the same
        log.warning(
            "calls to AWS may fail", why=f"looking for problems raised {type(error).__name__}"
        )
        return
    for problem in problems:
        event = "calls to AWS will fail" if problem.certain else "calls to AWS may fail"
        log.warning(event, about=problem.about, why=problem.text)


def _pages(settings: Settings, sessions: Sessions, reloader: Reloader) -> list[BaseRoute]:
    """The paths of the pages; none where they are switched off.

    Raises:
        ConfigError: Their logo can't be used.
    """
    page, logo = settings.page, None
    if not page.enabled:
        return []
    if page.logo is not None:
        try:
            logo = Logo(page.logo)
        except LogoError as error:
            raise ConfigError(str(error)) from None
        reloader.add([page.logo], logo.reload)
    offer = PageOffer(
        title=page.title,
        logo=ICON_PATH if logo is None else LOGO_PATH,
        welcome=page.welcome,
        examples=page.examples,
        authenticated=settings.auth.required,
        default=next(iter(sessions.routes)),
        routes=[route_offer(route.policy) for route in sessions.routes.values()],
    )
    return pages(offer, logo)


def operating(
    settings: Settings,
    console: Console,
    others: Others,
    sessions: Sessions,
    gate: AdminGate,
) -> tuple[list[HttpRoute], Watch]:
    """What operators use, and what lets them watch, which has to be closed."""
    endpoints = {name: route.endpoint_name for name, route in settings.routes.items()}
    fleet = Fleet(console, others, endpoints)
    watch = Watch(fleet, sessions.spawn)
    return Admin(fleet, watch, gate).routes(), watch


def application(
    settings: Settings,
    sessions: Sessions,
    admission: Admission,
    records: RecordStore,
    reloader: Reloader,
) -> tuple[Paths, Starlette, Connections, Gate]:
    """The ASGI application, the part of it without messages, and what counts its connections and
    its requests.

    Raises:
        ConfigError: A file of the pages can't be used.
    """
    origins = Origins(
        {name: route.allowed_origins for name, route in settings.routes.items()},
        public=settings.server.public_origin,
        any_name=settings.auth.required,
    )
    proxies = Proxies(settings.server.trusted_proxies)
    gate = Gate(
        admission,
        origins=origins,
        proxies=proxies,
        taken=tuple(OPTION_HEADERS),
        shown=("Location", "Retry-After", "Idempotency-Key", *REPLY_HEADERS),
    )
    api = Api(sessions, gate, settings.server.heartbeat_seconds)
    connections = Connections(settings.server.max_connections)
    openai = paths(
        sessions,
        records,
        admission=admission,
        origins=origins,
        proxies=proxies,
        keep_seconds=settings.openai.keep_seconds,
        bounds=Bounds(settings.openai.conversation_turns, settings.openai.conversation_bytes),
        heartbeat_seconds=settings.server.heartbeat_seconds,
        connections=connections,
        answered=gate.answered,
    )
    endpoint = WebSocketEndpoint(
        sessions,
        admission=admission,
        origins=origins,
        proxies=proxies,
        connections=connections,
        open_timeout=settings.server.open_timeout_seconds,
    )

    described = Document(list(settings.routes), authenticated=settings.auth.required)

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        if sessions.draining:
            return PlainTextResponse("draining\n", 503)
        if not sessions.can_keep:
            return PlainTextResponse("the store does not answer\n", 503)
        return PlainTextResponse("ok\n")

    rest = Starlette(
        routes=[
            *openai,
            WebSocketRoute("/ws", endpoint.serve),
            WebSocketRoute("/ws/{route:path}", endpoint.serve),
            HttpRoute("/ws", endpoint.explain, methods=["GET", "POST"]),
            HttpRoute("/ws/{route:path}", endpoint.explain, methods=["GET", "POST"]),
            HttpRoute("/openapi.json", described.serve),
            HttpRoute("/healthz", healthz),
            HttpRoute("/readyz", readyz),
            *_pages(settings, sessions, reloader),
        ],
        middleware=[Middleware(SecurityHeaders), Middleware(PlainAsgi)],
        exception_handlers={404: not_found},
    )
    # The API's requests are many, and need no middleware.
    own = [*api.routes(), gate.path("/v1/tickets", POST=ticket)]
    return Paths(own, rest), rest, connections, gate
