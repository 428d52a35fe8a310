"""The specification of Open Responses as a judge: its schema, as ``openresponses-types`` has it."""

import copy
import inspect
from enum import StrEnum
from typing import Any, cast

import openresponses_types.types as spec
from pydantic import BaseModel


def _type_of(model: type[BaseModel]) -> str:
    """What an event of this schema says that it is."""
    (kind,) = cast(type[StrEnum], model.model_fields["type"].annotation)
    return kind.value


EVENTS = {
    _type_of(model): model
    for name, model in inspect.getmembers(spec, inspect.isclass)
    if issubclass(model, BaseModel) and name.endswith("StreamingEvent")
}
"""The schema of each event, by its type."""

OVER = {"response.completed", "response.failed", "response.incomplete"}


def check_response(response: dict[str, Any]) -> dict[str, Any]:
    """See that it is a response as the specification has it."""
    spec.ResponseResource.model_validate(_without_schema(response))
    return response


def check_event(event: dict[str, Any]) -> dict[str, Any]:
    """See that it is an event as the specification has it."""
    whole = dict(event)
    if "response" in whole:
        whole["response"] = _without_schema(whole["response"])
    EVENTS[event["type"]].model_validate(whole)
    return event


def check_websocket_error(event: dict[str, Any]) -> None:
    """See that it is what a WebSocket tells of a request that is refused."""
    spec.WebSocketErrorEvent.model_validate(event)


def check_stream(events: list[dict[str, Any]], *, after: int = -1) -> dict[str, Any]:
    """See that these are all the events of a response; returns that.

    Args:
        events: They.
        after: The number of the event that they begin behind.
    """
    for number, event in enumerate(events, after + 1):
        check_event(event)
        assert event["sequence_number"] == number
    if after < 0:
        assert [event["type"] for event in events[:2]] == [
            "response.created",
            "response.in_progress",
        ]
    assert [event["type"] in OVER for event in events] == [False] * (len(events) - 1) + [True]
    response: dict[str, Any] = events[-1]["response"]
    if after < 0:
        assert rebuilt(events) == response["output"]
    return response


def rebuilt(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output as a client builds it from events, each in its place."""
    output = list[dict[str, Any]]()
    done = list[dict[str, Any]]()
    for event in events:
        match event["type"]:
            case "response.output_item.added":
                assert event["output_index"] == len(output)
                output.append(copy.deepcopy(event["item"]))
                done.append({})
            case "response.content_part.added":
                item = output[event["output_index"]]
                assert event["content_index"] == len(item["content"])
                assert event["item_id"] == item["id"]
                item["content"].append(copy.deepcopy(event["part"]))
            case "response.content_part.done":
                item = output[event["output_index"]]
                assert item["content"][event["content_index"]] == event["part"]
            case "response.function_call_arguments.delta":
                output[event["output_index"]]["arguments"] += event["delta"]
            case "response.function_call_arguments.done":
                assert output[event["output_index"]]["arguments"] == event["arguments"]
            case "response.output_item.done":
                item = event["item"]
                assert {**output[event["output_index"]], "status": item["status"]} == item
                assert not done[event["output_index"]]
                done[event["output_index"]] = item
            case kind if kind.endswith(".delta"):
                part = output[event["output_index"]]["content"][event["content_index"]]
                part["refusal" if "refusal" in kind else "text"] += event["delta"]
                part.get("logprobs", []).extend(event.get("logprobs", []))
    assert all(done)
    return done


def _without_schema(response: dict[str, Any]) -> dict[str, Any]:
    """The package takes the format's ``schema`` for null alone; the specification has an object."""
    form = response.get("text", {}).get("format", {})
    if not isinstance(form.get("schema"), dict):
        return response
    return {**response, "text": {**response["text"], "format": {**form, "schema": None}}}
