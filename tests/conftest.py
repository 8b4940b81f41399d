"""What all tests share: a missing engine skips for users and fails where it has to be there."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from roadsense._data import scenarios_dir

from .s3 import KEYS, Server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell; children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _missing(reason: str, what: str) -> None:
    if os.environ.get(f"ROADSENSE_REQUIRE_{what}") == "1":
        pytest.fail(f"{reason}, and ROADSENSE_REQUIRE_{what}=1 asks for it", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require_sumo() -> None:
    """For tests that run SUMO: ``pytestmark = pytest.mark.usefixtures("require_sumo")``, or asked for by a fixture."""
    try:
        import libsumo  # noqa: F401
    except ImportError as error:
        _missing(f"libsumo cannot be imported ({error})", "SUMO")


@pytest.fixture(scope="session")
def require_compilers() -> None:
    """For tests that build C."""
    for command in ("gcc", "g++"):
        if shutil.which(command) is None:
            _missing(f"{command} is not installed", "COMPILERS")


@pytest.fixture(scope="session")
def require_ray() -> None:
    """For tests of RLlib; modules that import it do so only where it is installed."""
    if find_spec("ray") is None:
        _missing("ray is not installed", "RAY")


@pytest.fixture
def busy_base(tmp_path):
    """The straight road with cars that set out behind the convoy, as somebody else's scenario would have them."""
    base = tmp_path / "busy"
    shutil.copytree(scenarios_dir() / "base" / "straight", base)
    routes = base / "vehicles.rou.xml"
    flow = """<vType id="lorry" length="12" maxSpeed="15"/>
    <route id="all" edges="straight"/>
    <flow id="back" type="lorry" route="all" begin="0" end="60" vehsPerHour="600" departSpeed="10"/>
    """
    routes.write_text(routes.read_text().replace("<routes>", f"<routes>{flow}"))
    return base


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """Moto's S3 over HTTP, once for all tests of a process."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """That server with one empty bucket, ``fleet``, and an environment in which boto3 takes it for AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3_server.bucket()
    return s3_server
