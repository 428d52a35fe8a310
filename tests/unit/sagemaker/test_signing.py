"""Signatures, beside those of botocore."""

from datetime import UTC, datetime
from types import SimpleNamespace

from botocore.auth import SigV4Auth
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from gateway.sagemaker.signing import Signer

MORNING = datetime(2026, 11, 21, 23, 59, 58, tzinfo=UTC).timestamp()


def signature(signer: Signer, keys: ReadOnlyCredentials, now: float, request: str) -> str:
    time = signer.time(now)
    return signer.authorization(keys, time, "host;x-amz-date", request)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["AKID", "ASIA/+"]), st.text(max_size=8), st.floats(0, 4_000_000_000)
        ),
        min_size=1,
        max_size=6,
    ),
    st.text(max_size=30),
)
def test_as_botocore_signs(calls: list[tuple[str, str, float]], request: str) -> None:
    """In any order of keys and days, of which the last derived key is kept."""
    signer = Signer("eu-central-1", "sagemaker")
    for access, secret, now in calls:
        keys = ReadOnlyCredentials(access, secret, None)
        time = signer.time(now)
        assert time == datetime.fromtimestamp(int(now), UTC).strftime("%Y%m%dT%H%M%SZ")
        auth = SigV4Auth(keys, "sagemaker", "eu-central-1")
        about = SimpleNamespace(context={"timestamp": time})
        expected = auth.signature(auth.string_to_sign(about, request), about)
        got = signer.authorization(keys, time, "host", request)
        assert got.endswith(f", SignedHeaders=host, Signature={expected}")
        assert got.startswith(f"AWS4-HMAC-SHA256 Credential={auth.scope(about)}, ")


def test_the_day_turns() -> None:
    signer = Signer("us-east-1", "sagemaker")
    keys = ReadOnlyCredentials("AKID", "secret", None)
    first = signature(signer, keys, MORNING, "")
    assert "AKID/20261121/us-east-1/sagemaker/aws4_request" in first
    second = signature(signer, keys, MORNING + 2, "")
    assert "AKID/20261122/us-east-1/sagemaker/aws4_request" in second
    assert signature(signer, keys, MORNING, "") == first
