"""The adapter of asynchronous routes against the local SageMaker, its S3 and its SQS."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.formats.presets import FORMATS
from gateway.formats.text import Text
from gateway.local.asynchronous import Accepted
from gateway.local.faults import Fault
from gateway.local.objects import Stored
from gateway.protocol.options import CallOptions
from gateway.sagemaker.asynchronous import AsyncModel
from gateway.sagemaker.notices import FAILED_SECONDS, PASSED_ON
from gateway.sagemaker.objects import AT_ONCE, NotRead
from gateway.sagemaker.options import ID_CHARACTERS, INLINE_BYTES, LATE_SECONDS
from gateway.sagemaker.runtime import NotConfigured
from gateway.session.ports import Call, ModelError, ModelReply, ModelRequest, Receipt
from tests.support.asynchronous import LONG_AGO, Fixture, ask, platform, services, soon, text_of
from tests.support.calls import invoke
from tests.support.timing import UNIT


@pytest.fixture(scope="module")
def transport() -> str:
    """Asynchronous routes have but one way to call."""
    return "aiobotocore"


@pytest.fixture
async def fixture() -> AsyncIterator[Fixture]:
    async with platform() as fixture:
        yield fixture


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20 * UNIT):
        while not condition():  # noqa: ASYNC110 - it is in a queue
            await asyncio.sleep(0.01)


async def failure(model: AsyncModel, request: ModelRequest | Receipt) -> Failure:
    work = waited(model, request) if isinstance(request, Receipt) else invoke(model, request)
    with pytest.raises(ModelError) as caught:
        await work
    return caught.value.failure


async def waited(model: AsyncModel, receipt: Receipt) -> ModelReply:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    model.wait(receipt, affinity="a", on_end=ended.set_result)
    async with asyncio.timeout(20 * UNIT):
        result = await ended
    if isinstance(result, Failure):
        raise ModelError(result)
    assert isinstance(result, ModelReply)
    return result


async def submitted(model: AsyncModel, request: ModelRequest) -> Receipt:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    model.invoke(
        request,
        None,
        affinity="s-1",
        principal="p",
        until=None,
        on_parts=lambda _parts: None,
        on_end=ended.set_result,
    )
    async with asyncio.timeout(20 * UNIT):
        receipt = await ended
    assert isinstance(receipt, Receipt), receipt
    return receipt


async def test_a_reply_is_found(fixture: Fixture) -> None:
    reply = await invoke(fixture.model(), ask("/echo hi"))
    assert (text_of(reply), reply.content_type) == ("hi", "text/plain; charset=utf-8")
    assert fixture.later.submitted == 1


async def test_also_by_who_has_not_asked_for_it(fixture: Fixture) -> None:
    receipt = await submitted(fixture.model(), ask("/echo hi"))
    async with services(fixture.url) as others:
        fixture.services = others
        assert text_of(await waited(fixture.model(), receipt)) == "hi"


async def test_inputs_can_be_objects(fixture: Fixture) -> None:
    model = fixture.model(input_location="s3://in/here/")
    large = "x" * (INLINE_BYTES + 1)
    assert text_of(await invoke(model, ask(f"/echo {large}"))) == large
    assert next(each[:10] for each in fixture.bucket.locations) == "s3://in/he"
    stored = await fixture.bucket.get(fixture.bucket.locations[0])
    assert stored.content_type == "text/plain"


async def test_else_they_may_have_128000_bytes(fixture: Fixture) -> None:
    found = await failure(fixture.model(), ask("x" * (INLINE_BYTES + 1)))
    assert (found.code, found.outcome) == (ErrorCode.TOO_LARGE, Outcome.NOT_INVOKED)
    assert fixture.later.submitted == 0
    await invoke(fixture.model(), ask("x" * INLINE_BYTES))


async def test_all_parameters_are_sent(fixture: Fixture) -> None:
    seen: list[Any] = []
    submit = fixture.later.submit

    def watched(endpoint: Any, parameters: Any, headers: Any, body: bytes) -> Any:
        seen.append((parameters, headers))
        return submit(endpoint, parameters, headers, body)

    fixture.later.submit = watched  # type: ignore[method-assign]
    model = fixture.model(
        defaults=CallOptions(accept="text/plain"),
        request_ttl_seconds=61,
        invocation_timeout_seconds=62,
        input_location="s3://in/",
        s3_output_path_extension="chat/$session/$id",
        filename="$id.txt",
    )
    receipt = await submitted(model, ask(custom_attributes="c=1"))
    ((parameters, headers),) = seen
    name = parameters["InferenceId"]
    assert parameters == {
        "ContentType": "text/plain",
        "Accept": "text/plain",
        "CustomAttributes": "c=1",
        "InferenceId": name,
        "InputLocation": f"s3://in/{name}",
        "RequestTTLSeconds": "61",
        "InvocationTimeoutSeconds": "62",
        "S3OutputPathExtension": f"chat/s-1/{name[:24]}",
        "Filename": f"{name[:24]}.txt",
    }
    assert headers["accept"] == "text/plain"
    assert receipt.reply_at.endswith(f"/chat/s-1/{name[:24]}/{name[:24]}.txt")
    assert receipt.id == name


async def test_replies_of_one_inference_id_are_told_apart(fixture: Fixture) -> None:
    model = fixture.model()
    mine = "m" * ID_CHARACTERS
    receipts = [await submitted(model, ask(f"/echo {n}", inference_id=mine)) for n in range(2)]
    assert all(re.fullmatch(f"{mine}-[0-9a-f]{{32}}", receipt.id) for receipt in receipts)
    replies = [text_of(await waited(model, receipt)) for receipt in receipts]
    assert replies == ["0", "1"]
    found = await failure(model, ask(inference_id=mine + "m"))
    assert (found.code, found.outcome) == (ErrorCode.VALIDATION_ERROR, Outcome.NOT_INVOKED)


async def test_the_text_is_taken_from_a_reply(fixture: Fixture) -> None:
    request = ModelRequest(body=b'{"messages": []}', content_type="application/json")
    reply = await invoke(fixture.model(FORMATS["openai-chat"]), request)
    assert text_of(reply).startswith("Stateless")
    assert reply.content_type == "text/plain; charset=utf-8"


async def test_what_a_failed_model_says_is_not_repeated(fixture: Fixture) -> None:
    found = await failure(fixture.model(), ask("/fail 418 secret"))
    assert (found.code, found.outcome) == (ErrorCode.MODEL_ERROR, Outcome.INVOKED)
    assert found.message == "The model answered with an error (status 418)."
    assert found.facts["original_status"] == 418
    assert "secret" not in str(found)


async def test_a_failure_without_a_status_may_be_of_the_queue(fixture: Fixture) -> None:
    await fixture.bucket.put("s3://b/no-error", Stored(b"The request has expired.", "text/plain"))
    found = await failure(fixture.model(), LONG_AGO)
    assert (found.code, found.outcome) == (ErrorCode.MODEL_ERROR, Outcome.UNKNOWN)


async def test_a_reply_that_never_comes(fixture: Fixture) -> None:
    found = await failure(fixture.model(), soon(LONG_AGO, 0.1))
    assert (found.code, found.outcome) == (ErrorCode.TIMEOUT, Outcome.UNKNOWN)
    assert found.facts.keys() == {"endpoint", "symptom", "hint"}
    assert found.facts["symptom"] == "no_reply"


async def test_one_that_is_there_when_its_time_is_over(fixture: Fixture) -> None:
    await fixture.bucket.put(LONG_AGO.reply_at, Stored(b"late", "text/plain"))
    assert text_of(await waited(fixture.model(), LONG_AGO)) == "late"


async def test_who_may_not_list_buckets_waits_all_the_same(fixture: Fixture) -> None:
    fixture.bucket.lists = False
    model = fixture.model()
    with capture_logs() as lines:
        found = await failure(model, soon(LONG_AGO, 0.3))
        assert found.facts["s3"] == "AccessDenied"
        fixture.endpoint.faults.add(Fault(delay_work_seconds=0.1))
        assert text_of(await invoke(model, ask("/echo hi"))) == "hi"
    events = [line["event"] for line in lines]
    assert events == ["S3 denies access to replies"]


async def test_a_reply_that_is_too_large() -> None:
    async with platform(reply_bytes=100) as fixture:
        found = await failure(fixture.model(), ask("/bytes 101"))
        assert (found.code, found.outcome) == (ErrorCode.TOO_LARGE, Outcome.INVOKED)
        assert len((await invoke(fixture.model(), ask("/bytes 100"))).body or b"") == 100


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        ("ThrottlingException", ErrorCode.THROTTLED, Outcome.NOT_INVOKED),
        ("ServiceUnavailable", ErrorCode.UNAVAILABLE, Outcome.UNKNOWN),
        ("InternalFailure", ErrorCode.UNAVAILABLE, Outcome.UNKNOWN),
    ],
)
async def test_a_call_that_fails(
    fixture: Fixture, error: Any, code: ErrorCode, outcome: Outcome
) -> None:
    fixture.endpoint.faults.add(Fault(error=error))
    found = await failure(fixture.model(), ask())
    assert (found.code, found.outcome) == (code, outcome)
    assert found.facts["endpoint"] == "my-endpoint"
    assert found.facts["body_bytes"] == 5


async def test_a_header_that_none_can_carry(fixture: Fixture) -> None:
    found = await failure(fixture.model(), ask(custom_attributes="é"))
    assert (found.code, found.outcome) == (ErrorCode.VALIDATION_ERROR, Outcome.NOT_INVOKED)


async def test_no_more_is_waited_for_than_may_be(fixture: Fixture) -> None:
    model = fixture.model(max_turns_awaited=1)
    fixture.endpoint.faults.add(Fault(delay_work_seconds=600))
    call = model.wait(await submitted(model, ask()), affinity="a", on_end=print)
    await asyncio.sleep(0)
    found = await failure(model, ask())
    assert (found.code, found.outcome) == (ErrorCode.THROTTLED, Outcome.NOT_INVOKED)
    call.cancel()
    await until(lambda: not model._awaited)
    await submitted(model, ask())
    assert fixture.later.submitted == 2


async def test_those_count_that_are_being_submitted(fixture: Fixture) -> None:
    model = fixture.model(max_turns_awaited=1)
    fixture.endpoint.faults.add(Fault(delay_seconds=0.2))
    first = asyncio.create_task(submitted(model, ask("/echo hi")))
    await asyncio.sleep(0)
    assert (await failure(model, ask())).code is ErrorCode.THROTTLED
    assert text_of(await waited(model, await first)) == "hi"
    await submitted(model, ask())
    assert fixture.later.submitted == 2


async def test_inputs_do_not_wait_for_those_that_look(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = fixture.services.objects
    stuck = asyncio.Event()
    get = objects._client.get_object

    async def slow(**asked: Any) -> Any:
        await stuck.wait()
        return await get(**asked)

    monkeypatch.setattr(objects._client, "get_object", slow)
    looking = [asyncio.create_task(objects.get("s3://b/k")) for _ in range(AT_ONCE)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5 * UNIT):
        await objects.put("s3://in/x", b"x", "text/plain")
    stuck.set()
    assert await asyncio.gather(*looking) == [None] * AT_ONCE


async def test_an_input_waits_no_longer_than_a_call_may_take() -> None:
    async with platform(call_timeout=0.2) as fixture:
        objects = fixture.services.objects
        for _ in range(AT_ONCE):
            await objects._putting.acquire()
        async with asyncio.timeout(5 * UNIT):
            with pytest.raises(ModelError):
                await objects.put("s3://in/x", b"x", "text/plain")


async def test_what_is_cancelled_is_not_heard_of() -> None:
    async with platform() as fixture:
        ends: list[Any] = []

        def begin(model: AsyncModel) -> Call:
            return model.invoke(
                ask(),
                None,
                affinity="a",
                principal="p",
                until=None,
                on_parts=lambda _parts: None,
                on_end=ends.append,
            )

        before = begin(fixture.model(input_location="s3://in/"))
        assert before.cancel() is Outcome.NOT_INVOKED
        fixture.endpoint.faults.add(Fault(delay_seconds=0.2))
        call = begin(fixture.model())
        await asyncio.sleep(0.1)
        assert call.cancel() is None
        wait = fixture.model().wait(soon(LONG_AGO), affinity="a", on_end=ends.append)
        await asyncio.sleep(0.1)
        wait.cancel()
        await asyncio.sleep(0.2)
        assert ends == []


async def test_an_input_that_can_not_be_put() -> None:
    async with (
        platform() as fixture,
        services(fixture.url, s3_endpoint_url="http://127.0.0.1:9") as broken,
    ):
        fixture.services = broken
        found = await failure(fixture.model(input_location="s3://in/"), ask())
    assert (found.code, found.outcome) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)
    assert fixture.later.submitted == 0


async def test_whatever_a_call_to_s3_raises(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewing credentials raises what the program raises that gives them."""
    broken = True
    credentials = fixture.services.objects._client._request_signer._credentials
    frozen = credentials.get_frozen_credentials

    async def renewed() -> Any:
        if broken:
            raise RuntimeError
        return await frozen()

    receipt = await submitted(fixture.model(), ask("/echo hi"))
    monkeypatch.setattr(credentials, "get_frozen_credentials", renewed)
    with capture_logs() as lines:
        waiting = asyncio.create_task(waited(fixture.model(), receipt))
        await until(lambda: lines)
    assert (lines[0]["event"], lines[0]["why"]) == ("a reply can't be read yet", "RuntimeError")
    with pytest.raises(ModelError) as caught:
        await fixture.services.objects.put("s3://in/x", b"x", "text/plain")
    found = caught.value.failure
    assert (found.code, found.outcome) == (ErrorCode.UNAVAILABLE, Outcome.NOT_INVOKED)
    broken = False
    assert text_of(await waiting) == "hi"


async def test_no_redirect_is_followed() -> None:
    """Another host would be given the security token."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\n")
        writer.write(b"content-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        url = f"http://{host}:{port}"
        async with services(url, s3_endpoint_url=url, sqs_endpoint_url=url) as clients:
            with pytest.raises(NotRead):
                await clients.objects.get("s3://b/k")
            with pytest.raises(ModelError):
                await clients.objects.put("s3://b/k", b"x", "text/plain")
            with capture_logs() as lines:
                clients.notices(f"{url}/queue")
                await until(lambda: lines)
    assert not [line for line in asked if b"elsewhere" in line]


async def test_a_call_that_waits_to_be_made_leaves_a_turn_its_time(fixture: Fixture) -> None:
    fixture.endpoint.faults.add(Fault(delay_seconds=0.5))
    began = time.time()
    model = fixture.model(request_ttl_seconds=60, invocation_timeout_seconds=1)
    receipt = await submitted(model, ask())
    assert receipt.until >= began + 0.5 + 60 + 1 + LATE_SECONDS


async def test_while_objects_can_not_be_read_replies_are_waited_for() -> None:
    async with platform() as fixture:
        receipt = await submitted(fixture.model(), ask("/echo hi"))
        async with services(fixture.url, s3_endpoint_url="http://127.0.0.1:9") as broken:
            fixture.services = broken
            with capture_logs() as lines:
                found = await failure(fixture.model(), soon(LONG_AGO, 0.5))
        assert found.facts["s3"] == "EndpointConnectionError"
        assert lines[0]["event"] == "a reply can't be read yet"
        assert receipt.id not in str(lines)


async def test_what_is_wrong_with_the_settings_is_said() -> None:
    with pytest.raises(NotConfigured, match="Invalid endpoint"):
        async with services("http://127.0.0.1:9", s3_endpoint_url="http://a b/"):
            pass


async def test_failures_that_nobody_tells_of_are_warned_of_once(fixture: Fixture) -> None:
    fixture.later._failures = None
    model = fixture.model()
    with capture_logs() as lines:
        for _ in range(2):
            await submitted(model, ask())
        await submitted(fixture.model(notification_queue_url=fixture.queue_url), ask())
    (line,) = lines
    assert line["event"] == "failures are not reported"


async def test_a_call_that_is_answered_without_a_place(fixture: Fixture) -> None:
    fixture.later.submit = lambda *_: Accepted("i", "", None)  # type: ignore[method-assign]
    found = await failure(fixture.model(), ask())
    assert (found.code, found.outcome) == (ErrorCode.UNAVAILABLE, Outcome.UNKNOWN)
    assert found.facts == {"endpoint": "my-endpoint"}


async def test_what_nobody_has_foreseen_ends_the_turn(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(fixture.services.objects, "get", breaks)
    with capture_logs() as lines:
        found = await failure(fixture.model(), soon(LONG_AGO))
    assert (found.code, found.outcome) == (ErrorCode.INTERNAL, Outcome.UNKNOWN)
    assert [line["event"] for line in lines] == ["an adapter failed"]


async def test_a_reply_whose_text_can_not_be_taken(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Text, "of_body", breaks)
    found = await failure(fixture.model(FORMATS["openai-chat"]), ask())
    assert (found.code, found.outcome) == (ErrorCode.STREAM_BROKEN, Outcome.INVOKED)


class TestNotices:
    """With a queue, replies are looked for when it tells of them."""

    def model(self, fixture: Fixture, poll_seconds: float = 600.0) -> AsyncModel:
        return fixture.model(
            notification_queue_url=fixture.queue_url,
            poll_seconds=poll_seconds,
            poll_max_seconds=600.0,
        )

    async def test_a_reply_is_looked_for_when_it_is_there(self, fixture: Fixture) -> None:
        fixture.endpoint.faults.add(Fault(delay_work_seconds=0.2))
        async with asyncio.timeout(20 * UNIT):
            assert text_of(await invoke(self.model(fixture), ask("/echo hi"))) == "hi"
            await until(lambda: not len(fixture.queue))

    async def test_a_failure_too(self, fixture: Fixture) -> None:
        fixture.endpoint.faults.add(Fault(delay_work_seconds=0.2))
        found = await failure(self.model(fixture), ask("/fail 418"))
        assert found.facts["original_status"] == 418

    async def test_where_failures_are_no_objects_the_notice_counts(self, fixture: Fixture) -> None:
        fixture.later._failures = None
        fixture.endpoint.faults.add(Fault(delay_work_seconds=0.2))
        found = await failure(self.model(fixture), ask("/fail 418"))
        assert (found.code, found.outcome) == (ErrorCode.MODEL_ERROR, Outcome.UNKNOWN)

    async def test_what_was_told_too_early_is_looked_for_again(self, fixture: Fixture) -> None:
        receipt = soon(LONG_AGO)
        model = fixture.model(
            notification_queue_url=fixture.queue_url, poll_seconds=0.05, poll_max_seconds=600.0
        )
        await until(lambda: fixture.services.notices(fixture.queue_url).is_up)
        waiting = asyncio.create_task(waited(model, receipt))
        await asyncio.sleep(0.1)
        where = {"outputLocation": receipt.reply_at}
        notice = {"invocationStatus": "Completed", "responseParameters": where}
        await fixture.queue.publish(notice, True)
        await until(lambda: not len(fixture.queue))
        await fixture.bucket.put(receipt.reply_at, Stored(b"hi", "text/plain"))
        assert text_of(await waiting) == "hi"

    async def test_others_notices_are_passed_on_and_then_dropped(
        self, fixture: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.sagemaker.notices.PASS_SECONDS", 0)
        fixture.queue.add("no notice")
        await fixture.queue.publish({"inferenceId": "another's"}, True)
        received: list[int] = []
        hide = fixture.queue.hide

        def watched(handle: str, seconds: float) -> None:
            received.append(int(handle.partition("/")[2]))
            hide(handle, seconds)

        monkeypatch.setattr(fixture.queue, "hide", watched)
        self.model(fixture)
        await until(lambda: not len(fixture.queue))
        assert received == [*range(1, 10)]

    async def test_that_of_a_failure_is_passed_on_for_longer(
        self, fixture: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.sagemaker.notices.PASS_SECONDS", 0)
        notice = {"inferenceId": "i", "invocationStatus": "Failed", "failureReason": "(418)"}
        await fixture.queue.publish(notice, False)
        model = self.model(fixture)
        (message,) = fixture.queue._messages.values()
        await until(lambda: message.received > 2 * PASSED_ON)
        found = await failure(model, soon(LONG_AGO))
        assert (found.code, found.outcome) == (ErrorCode.MODEL_ERROR, Outcome.UNKNOWN)
        await fixture.queue.publish({**notice, "inferenceId": "old"}, False)
        (message,) = fixture.queue._messages.values()
        message.sent_at -= FAILED_SECONDS
        await until(lambda: not len(fixture.queue))

    async def test_who_waits_already_looks_when_a_queue_dies(
        self, fixture: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = fixture.model(
            notification_queue_url=fixture.queue_url, poll_seconds=0.01, poll_max_seconds=600.0
        )
        notices = fixture.services.notices(fixture.queue_url)
        await until(lambda: notices.is_up)
        receipt = soon(LONG_AGO)
        waiting = asyncio.create_task(waited(model, receipt))
        await until(lambda: notices._waiting)
        await asyncio.sleep(0.1)
        await fixture.bucket.put(receipt.reply_at, Stored(b"hi", "text/plain"))

        def breaks(**_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(notices._client, "receive_message", breaks)
        fixture.queue.add("which ends what is received now")
        assert text_of(await waiting) == "hi"

    async def test_two_gateways_share_a_queue(self, fixture: Fixture) -> None:
        fixture.endpoint.faults.add(Fault(delay_work_seconds=0.2))
        model = self.model(fixture)
        async with services(fixture.url) as others:
            others.notices(fixture.queue_url)
            async with asyncio.timeout(20 * UNIT):
                replies = await asyncio.gather(
                    *(invoke(model, ask(f"/echo {number}")) for number in range(4))
                )
        assert [text_of(reply) for reply in replies] == ["0", "1", "2", "3"]

    async def test_while_the_queue_can_not_be_read_replies_are_looked_for(
        self, fixture: Fixture
    ) -> None:
        fixture.endpoint.faults.add(Fault(delay_work_seconds=0.1))
        async with services(fixture.url, sqs_endpoint_url="http://127.0.0.1:9") as broken:
            fixture.services = broken
            with capture_logs() as lines:
                model = self.model(fixture, poll_seconds=0.01)
                assert text_of(await invoke(model, ask("/echo hi"))) == "hi"
                await until(lambda: lines)
        (line,) = lines
        assert (line["event"], line["why"]) == ("a queue can't be read", "EndpointConnectionError")
