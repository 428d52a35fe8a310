"""What adapters and the core say to each other."""

from gateway.errors import ErrorCode, Failure
from gateway.session.ports import ModelError


def test_an_error_of_the_model_says_what_it_was() -> None:
    error = ModelError(Failure(code=ErrorCode.TIMEOUT, message="It took too long."))
    assert str(error) == "('timeout', 'It took too long.')"
