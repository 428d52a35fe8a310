"""The options of a call are declared once; what can't be derived from that is held to it here."""

from msgspec import UNSET, structs

from gateway.client.sending import Options
from gateway.config import RouteSettings
from gateway.local.api import InputModel
from gateway.protocol.messages import MessageSend
from gateway.protocol.options import OPTIONS, PARAMETERS, RESTRICTED, CallOptions
from gateway.session.bodies import options_of
from gateway.session.ports import ModelRequest

OTHERS = {"EndpointName", "Body", "SessionId", "PrefixAwareId"}
"""Parameters that the gateway sets by itself."""


def test_they_are_all_that_the_api_has() -> None:
    members = {parameter.name for parameter in InputModel("InvokeEndpoint").parameters}
    assert {*PARAMETERS.values()} == members - OTHERS


def test_messages_and_requests_begin_with_them() -> None:
    count = len(OPTIONS)
    assert MessageSend.__struct_fields__[:count] == OPTIONS
    assert ModelRequest.__struct_fields__[:count] == OPTIONS
    given = {name: f"value of {name}" for name in OPTIONS}
    assert options_of(MessageSend(id="1", text="hi", stream=True, **given)) == given  # type: ignore[arg-type]
    assert options_of(MessageSend(id="1", text="hi", stream=True)) == {}


def test_the_python_client_takes_them_as_keywords() -> None:
    assert [*Options.__annotations__] == ["stream", *OPTIONS]


def test_a_route_has_each() -> None:
    values = {name: f"value-of-{number}" for number, name in enumerate(OPTIONS)}
    route = RouteSettings.model_validate({"endpoint_name": "e", **values})
    assert structs.asdict(route.defaults) == values
    silent = RouteSettings(endpoint_name="e").defaults
    assert silent == CallOptions()
    assert {*structs.astuple(silent)} == {UNSET}
    every = RouteSettings.model_validate({"endpoint_name": "e", "allow": sorted(RESTRICTED)})
    assert every.allow == RESTRICTED < {*OPTIONS}
