"""docs/api-gateway.md: the function that it shows does what it is said to do."""

import json
from typing import Any

import botocore.client
import pytest
from botocore.validate import ParamValidator

from tests.documents.blocks import Document

BEFORE = Document("docs/api-gateway.md").block("python", "Before")
ROW = {"id": {"S": "c1"}}
ANSWERS: dict[str, dict[str, Any]] = {
    "GetItem": {"Item": ROW},
    "InvokeEndpoint": {"NewSessionId": "s1; Expires=2030-01-01T00:00:00Z"},
    "InvokeEndpointWithResponseStream": {"Body": [{"PayloadPart": {"Bytes": b"Hello Ada!"}}]},
}
"""What AWS's services say, which are not to be had here."""


def test_the_function_of_before_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, dict[str, Any]]] = []

    def noted(client: Any, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        shape = client.meta.service_model.operation_model(operation).input_shape
        refused = ParamValidator().validate(parameters, shape)
        assert not refused.has_errors(), refused.generate_report()
        called.append((operation, parameters))
        return ANSWERS.get(operation, {})

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", noted)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    module: dict[str, Any] = {}
    exec(BEFORE, module)
    event = {
        "requestContext": {"connectionId": "c1", "domainName": "d.example.com", "stage": "prod"},
        "body": json.dumps({"action": "ask", "messages": [{"role": "user", "content": "Hello"}]}),
    }
    assert module["handler"](event, None) == {"statusCode": 200}
    assert [operation for operation, _ in called] == [
        "GetItem",
        "InvokeEndpoint",
        "PutItem",
        "InvokeEndpointWithResponseStream",
        "PostToConnection",
    ]
    assert called[3][1]["SessionId"] == "s1"
    assert called[4][1] == {"ConnectionId": "c1", "Data": b"Hello Ada!"}
