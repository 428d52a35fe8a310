"""What a queue's messages say: those that say nothing keep nobody from the others."""

import pytest

from gateway.sagemaker.notices import notice_of


@pytest.mark.parametrize(
    "body",
    [
        "no notice",
        "[]",
        '{"inferenceId": 1}',
        '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "\ud800",
        '{"Message": "\\ud800"}',
    ],
    ids=["text", "list", "number", "deep", "surrogate", "surrogate-inside"],
)
def test_what_is_no_notice(body: str) -> None:
    assert notice_of(body) is None


def test_a_notice_may_leave_its_texts_empty() -> None:
    text = '"invocationStatus": "Failed", "failureReason": null, "responseParameters": null'
    notice = notice_of(f'{{"inferenceId": "i", {text}}}')
    assert notice is not None
    assert notice.has_failed
    assert notice.inference_id == "i"
