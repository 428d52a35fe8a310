"""Whether the platform can be called: region, profile and credentials of this machine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import botocore.exceptions as boto
import pytest

from gateway.local.environment import apart_from_aws
from gateway.sagemaker import runtime
from gateway.sagemaker.checks import no_credentials, platform_problems
from gateway.sagemaker.runtime import NotConfigured
from tests.support import transports
from tests.support.listener import listening
from tests.support.timing import UNIT


@pytest.fixture(autouse=True)
def config(tmp_path: Path) -> Iterator[Path]:
    """A configuration file for AWS's SDK, which sees nothing else of this machine's."""
    file = tmp_path / "config"
    file.touch()
    with apart_from_aws(AWS_CONFIG_FILE=str(file)):
        yield file


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def problems(
    region: str | None = "us-east-1",
    profile: str | None = None,
    endpoint_url: str | None = None,
    *,
    credentials: bool = False,
    seconds: float = 5 * UNIT,
) -> list[tuple[str, str, bool]]:
    found = await platform_problems(
        region=region,
        profile=profile,
        endpoint_url=endpoint_url,
        credentials=credentials,
        seconds=seconds,
    )
    return [(problem.about, problem.text, problem.certain) for problem in found]


@pytest.mark.parametrize("region", ["us-east-1", "mx-central-1", "cn-north-1", "eusc-de-east-1"])
async def test_a_region(region: str) -> None:
    assert await problems(region) == []


async def test_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    ((about, text, certain),) = await problems(None)
    assert (about, certain) == ("region", True)
    assert 'set one, such as region = "us-east-1", or set AWS_DEFAULT_REGION' in text
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    ((_, text, _),) = await problems(None)
    assert "does not read AWS_REGION" in text
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert await problems(None) == []


@pytest.mark.parametrize(
    ("region", "told"),
    [
        ("us-est-1", "us-est-1 is not a region that botocore"),
        ("us-est-1", "did you mean us-east-1 or us-west-1?"),
        ("eu-centrl-1", "did you mean eu-central-1?"),
        ("aws-global", "aws-global is not a region"),
        ("xyz", "this is not a region"),
        ("AKIAIOSFODNN7EXAMPLE", "this is not a region"),
    ],
)
async def test_a_region_that_is_none(region: str, told: str) -> None:
    ((about, text, certain),) = await problems(region)
    assert (about, certain) == ("region", True)
    assert told in text
    ((_, _, certain),) = await problems(region, endpoint_url="http://127.0.0.1:9000")
    assert not certain, "what is not AWS may have regions of its own"


async def test_a_region_that_may_be_newer_than_the_sdk() -> None:
    ((_, text, certain),) = await problems("us-west-9")
    assert "did you mean us-west-1 or us-west-2?" in text
    assert not certain


async def test_a_region_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-est-1")
    ((about, text, certain),) = await problems(None)
    assert (about, certain) == ("environment", True)
    assert text.startswith("AWS_DEFAULT_REGION: us-est-1 is not a region")


async def test_a_region_of_the_profile(config: Path) -> None:
    write(config, "[default]\nregion = us-west-9\n")
    ((about, text, certain),) = await problems(None)
    assert (about, certain) == ("environment", False)
    assert text.startswith(f"region in {config} and /dev/null: us-west-9 is not a region")


async def test_an_unknown_profile(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = await problems(profile="staging")
    ((about, text, certain),) = told
    assert (about, certain) == ("profile", True)
    assert (
        text
        == f"there is no profile with this name in {config} and /dev/null; they contain no profiles"
    )
    write(config, "[profile production]\nregion = us-east-1\n[profile staging]\n")
    assert await problems(profile="production", region=None) == []
    ((_, text, _),) = await problems(profile="stagign")
    assert text.endswith("did you mean staging?")
    for variable in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):  # the SDK takes the second one first
        monkeypatch.setenv(variable, "x")
        ((about, text, certain),) = await problems()
        assert (about, certain) == ("environment", True)
        assert text.startswith(f"{variable}: there is no profile with this name in {config}")
        assert text.endswith("the profiles are production, staging")


async def test_a_configuration_file_that_is_none(config: Path) -> None:
    write(config, "nonsense")
    ((about, text, _),) = await problems()
    assert about == "environment"
    assert text.startswith(f"{config}: this AWS configuration file can't be parsed")


async def test_credentials(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    ((about, text, certain),) = await problems(credentials=True)
    assert (about, certain) == ("credentials", True)
    assert text.startswith(
        "no AWS credentials were found in AWS_ACCESS_KEY_ID, profile default in "
        f"{config} and /dev/null, or the role of the container or instance "
        "(AWS_EC2_METADATA_DISABLED excludes the instance's)"
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    ((_, text, certain),) = await problems(credentials=True)
    assert "missing: AWS_SECRET_ACCESS_KEY" in text
    assert certain
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local-secret")
    assert await problems(credentials=True) == []


async def credentials_problem() -> str:
    ((about, text, certain),) = await problems(credentials=True)
    assert (about, certain) == ("credentials", True)
    start, found, why = text.partition("AWS credentials can't be loaded: ")
    assert found
    assert not start
    return why


HINT = "; `aws sts get-caller-identity` says more"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("/nonexistent", "No such file or directory: /nonexistent"),
        (
            "sh -c 'echo SWORDFISH >&2; exit 1'",
            f"custom-process failed (CredentialRetrievalError){HINT}",
        ),
        ('echo \'{"Version": "SWORDFISH"}\'', "custom-process failed (Credential"),
        ("echo []", f"AttributeError{HINT}"),
        ("echo SWORDFISH", f"JSONDecodeError{HINT}"),
    ],
)
async def test_credentials_that_a_program_can_not_give(
    config: Path, program: str, why: str
) -> None:
    write(config, f"[default]\ncredential_process = {program}\n")
    told = await credentials_problem()
    assert told.startswith(why)
    assert "SWORDFISH" not in told


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("sh -c 'echo SWORDFISH >&2; exit 1'", "custom-process failed (CredentialRetr"),
        ("/nonexistent", "No such file or directory: /nonexistent"),
        ("echo []", "AttributeError"),
    ],
)
async def test_no_client_without_them(config: Path, program: str, why: str) -> None:
    write(config, f"[default]\ncredential_process = {program}\n")
    with pytest.raises(NotConfigured) as caught:
        await make_client("us-east-1")
    assert str(caught.value).startswith(f"AWS credentials can't be loaded: {why}")
    assert "SWORDFISH" not in str(caught.value)


async def test_no_client_where_the_environment_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured, match=r"^aws\.region: no region is set"):
        await make_client(None)
    with pytest.raises(NotConfigured, match=r"^\[aws\]: .*Invalid endpoint"):
        await make_client("us-east-1", "http://a b")
    monkeypatch.setenv("AWS_PROFILE", "nope")
    with pytest.raises(NotConfigured, match=r"^AWS_PROFILE: there is no profile with this name"):
        await make_client("us-east-1")


async def make_client(region: str | None, endpoint_url: str | None = None) -> None:
    async with transports.client(endpoint_url, region=region):
        pass


async def test_a_profile_that_leads_nowhere(config: Path) -> None:
    write(config, "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = other\n")
    assert "other" in await credentials_problem()


def refused(code: str) -> boto.ClientError:
    return boto.ClientError({"Error": {"Code": code, "Message": "SWORDFISH"}}, "AssumeRole")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (refused("AccessDenied"), "AssumeRole was refused: AccessDenied"),
        (refused("SWORD\nFISH"), "AssumeRole was refused: …"),
        (boto.ClientError({}, "AssumeRole"), f"ClientError{HINT}"),
        (OSError("SWORDFISH"), f"OSError{HINT}"),
        (boto.MetadataRetrievalError(error_msg="SWORDFISH"), f"MetadataRetrievalError{HINT}"),
    ],
)
def test_why_there_are_none(error: Exception, why: str) -> None:
    assert no_credentials(error) == f"AWS credentials can't be loaded: {why}"


@asynccontextmanager
async def silent_metadata(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Event]:
    """A metadata service that never answers; set once nobody asks it any more."""
    gone = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "600")
    async with listening(hang) as port:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{port}")
        yield gone


async def test_looking_for_credentials_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with silent_metadata(monkeypatch) as gone:
        for seconds in (0.5 * UNIT, 2 * UNIT, 8 * UNIT):
            ((about, text, certain),) = await problems(credentials=True, seconds=seconds)
            assert (about, certain) == ("credentials", False)
            assert text == f"looking for AWS credentials took longer than {seconds:g} s"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await gone.wait()  # it was asked, and asks no more
                break  # else this machine is so busy that it was not asked in that time
    assert gone.is_set()


async def test_no_client_waits_for_them_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "START_SECONDS", 0.5 * UNIT)
    async with silent_metadata(monkeypatch) as gone:
        with pytest.raises(NotConfigured, match=r"^looking for AWS credentials took longer than"):
            await make_client("us-east-1")
        async with asyncio.timeout(5 * UNIT):
            await gone.wait()
