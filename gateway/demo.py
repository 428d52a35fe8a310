"""The demonstration: a gateway, SageMaker on this machine and models, all in one process.

The built-in model is also served as an asynchronous endpoint, which takes a few seconds. The
language model is served in both of the usual ways: remembering the conversation, and forgetting it,
so that the gateway sends all of it with each message. Another model detects speech, in binary
messages. With several replicas, each gateway is a process of its own, and so is the store that they
share.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gateway.config import (
    AwsSettings,
    PageSettings,
    RouteSettings,
    ServerSettings,
    Settings,
    StoreSettings,
)
from gateway.local.asynchronous import Asynchronous
from gateway.local.builtin import BuiltinModel
from gateway.local.environment import apart_from_aws
from gateway.local.faults import Fault
from gateway.local.language import LanguageModel
from gateway.local.llama import SLOTS, LanguageModelUnavailable, Llama, find_weights
from gateway.local.notices import Queue
from gateway.local.objects import Bucket
from gateway.local.platform import Endpoint
from gateway.local.server import ACCESS_KEY, REGION, SECRET_KEY, running
from gateway.local.valkey import running as running_valkey
from gateway.local.voice import VoiceModel, VoiceModelUnavailable, check_installed
from gateway.local.waiting import waiting
from gateway.process import Signals, listen
from gateway.serving import serve
from gateway.workers import supervise

INSTANCES = 2
LEASE_SECONDS = 2.0
"""Short, so that a failover in the demonstration is quick."""

WORK_SECONDS = 5.0
"""Seconds that the asynchronous endpoint works on each turn."""

VOICE = "voice"
"""The route of the page ``/voice``."""
VOICE_TURNS = 1200
"""Five minutes of what that page sends, which is replayed to a new instance."""
VOICE_BYTES = 10_000_000
"""The same in bytes, at 32,000 a second."""

ROUTES = {
    "language": "SmolLM2-135M, which keeps the conversation in its instance's memory",
    "openai-chat": "a model without memory: the gateway sends the conversation with each message",
    "builtin": "a simple built-in model, which shows its session's state in each answer",
    "slow": "an asynchronous endpoint, which answers after some seconds",
    VOICE: "a speech detector, for binary messages",
}
"""What each route shows."""

SEED = "Let us go on with this conversation:\n$transcript"


async def demo(
    *,
    port: int,
    model: Path | None,
    builtin_only: bool,
    replicas: int,
    say: Callable[[str], None],
    on_ready: Callable[[str], None],
) -> None:
    """Run until SIGINT or SIGTERM, regardless of this machine's settings for AWS or the gateway.

    Args:
        port: Port of the gateway; 0 for any free one.
        model: A GGUF file to use instead of the installed one.
        builtin_only: Leave out the language model.
        replicas: Number of gateways that share the port and a store; a single one keeps its
            sessions in memory.
        say: Called with progress messages.
        on_ready: Called with the URL of the page.

    Raises:
        LanguageModelUnavailable: The given file is not a model.
        ValkeyUnavailable: The store that replicas share can't be started.
        OSError: The port can't be listened on.
    """
    listen(ServerSettings().host, port).close()  # fail before the model is loaded, which is slow
    names = [f"i-{n}" for n in range(1, INSTANCES + 1)]
    builtin = Endpoint("builtin", [BuiltinModel(name) for name in names])
    bucket, queue = Bucket(), Queue()
    slow = Endpoint(
        "slow",
        [BuiltinModel(name, forgets=True) for name in names],
        asynchronous=Asynchronous(bucket, queue.publish),
    )
    slow.faults.add(Fault(delay_work_seconds=WORK_SECONDS))
    endpoints = [
        builtin,
        slow,
        Endpoint("openai-chat", [BuiltinModel(name, forgets=True) for name in names]),
    ]
    with Signals() as signals, _store(replicas) as store:
        if not builtin_only:
            try:
                weights = find_weights(model)
            except LanguageModelUnavailable as missing:
                say(f"Starting with the built-in model only: {missing}")
            else:
                # llama.cpp can't be interrupted while it loads; handle signals after that.
                signals.handle = lambda: say("Stopping once the model has loaded …")
                llamas = {name: Llama(weights) for name in names}
                what = f"Loading {weights.name} into {INSTANCES} instances"
                with waiting(what, INSTANCES, f"Loaded {weights.name}") as loaded:
                    for llama in llamas.values():
                        await llama.load()
                        if signals.received:
                            return
                        loaded()
                endpoints = [*_language_models(llamas), builtin, slow]
        endpoints += _voice(names, say)
        with apart_from_aws(AWS_ACCESS_KEY_ID=ACCESS_KEY, AWS_SECRET_ACCESS_KEY=SECRET_KEY):
            async with running(endpoints, bucket=bucket, queue=queue) as url:
                say(f"Local SageMaker: {url}")
                if replicas > 1:
                    say(f"Starting {replicas} gateways …")
                settings = _settings(url, endpoints, port, replicas, store)
                ready = _ready(settings, url, say, on_ready)
                if replicas == 1:
                    await serve(settings, on_ready=ready, signals=signals)
                    return

                def tell(pid: int) -> None:
                    say(f"Kill a replica; its conversations continue at another: kill -9 {pid}")

                await supervise(settings, on_ready=ready, on_worker=tell, signals=signals)


@contextlib.contextmanager
def _store(replicas: int) -> Iterator[StoreSettings]:
    """Run the store that replicas share."""
    if replicas == 1:
        yield StoreSettings()
        return
    with running_valkey() as valkey:
        yield StoreSettings.model_validate(
            {
                "kind": "valkey",
                "url": valkey.url,
                "password": valkey.password,
                "lease_seconds": LEASE_SECONDS,
            }
        )


def _ready(
    settings: Settings, platform: str, say: Callable[[str], None], on_ready: Callable[[str], None]
) -> Callable[[str], None]:
    """Announce the voice page too, if there is one."""

    def ready(url: str) -> None:
        say("Routes:")
        for name, about in ROUTES.items():
            if name in settings.routes:
                say(f"  {name:<12} {about}")
        lose = f"curl -X POST {platform}/_local/builtin/instances/i-1/lose"
        say(f"Lose an instance; its conversations continue at the other: {lose}")
        if VOICE in settings.routes:
            say(f"Speech detection in the browser: {url}/{VOICE}")
        say(f"Operator's page: {url}/operator")
        on_ready(url)

    return ready


def _voice(names: Sequence[str], say: Callable[[str], None]) -> list[Endpoint]:
    """Create the voice model's endpoint, if its package is installed."""
    try:
        check_installed()
    except VoiceModelUnavailable as missing:
        say(f"Starting without the route {VOICE}: {missing}")
        return []
    return [Endpoint(VOICE, [VoiceModel(name) for name in names])]


def _language_models(llamas: Mapping[str, Llama]) -> list[Endpoint]:
    """Create two endpoints whose instances share the loaded models, with half of the slots each."""
    half = SLOTS // 2
    remembering = [LanguageModel(llama, name, slots=range(half)) for name, llama in llamas.items()]
    forgetting = [
        LanguageModel(llama, name, slots=range(half, SLOTS), forgets=True)
        for name, llama in llamas.items()
    ]
    return [Endpoint("language", remembering), Endpoint("openai-chat", forgetting)]


def _settings(
    url: str, endpoints: list[Endpoint], port: int, replicas: int, store: StoreSettings
) -> Settings:
    """Create the settings, with a route for each endpoint."""
    return Settings(
        server=ServerSettings(
            port=port, workers=replicas, local_operator=True, log_level="WARNING", drain_seconds=3
        ),
        store=store,
        page=PageSettings(examples=("My name is Ada, and I like chess.", "What is my name?")),
        aws=AwsSettings(
            region=REGION,
            endpoint_url=url,
            s3_endpoint_url=f"{url}/_s3",
            sqs_endpoint_url=f"{url}/_sqs",
        ),
        routes={endpoint.name: _route(endpoint.name, url) for endpoint in endpoints},
    )


def _route(name: str, url: str) -> RouteSettings:
    if name == "slow":
        return RouteSettings(
            endpoint_name=name,
            mode="async",
            format="openai-chat",
            input_location="s3://local/inputs/",
            notification_queue_url=f"{url}/_sqs",
        )
    if name == VOICE:
        return RouteSettings(
            endpoint_name=name,
            body="json",
            on_expiry="replay",
            on_lost="replay",
            transcript_turns=VOICE_TURNS,
            transcript_bytes=VOICE_BYTES,
        )
    if name == "openai-chat":
        # The history leaves room for the message and the reply in 2048 tokens.
        return RouteSettings(
            endpoint_name=name, format="openai-chat", transcript_turns=20, transcript_bytes=3072
        )
    return RouteSettings(
        endpoint_name=name,
        format="plain",
        on_expiry="replay",
        on_lost="replay",
        # A language model would take too long to answer each turn again.
        replay_seed=SEED if name == "language" else None,
    )
