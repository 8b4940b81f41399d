"""Jobs over Ray's job server, the real one: exit codes come back, and stopping saves the work."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from roadsense.cli import main
from roadsense.cloud import submit as submission
from roadsense.cloud.submit import FollowConfig, SubmitConfig, entrypoint
from roadsense.errors import RoadsenseError, UsageError

from ..s3 import KEYS, Server
from ..stored import make_run
from .test_supervisor import CODE, STANDIN, STORE

REPO = Path(__file__).resolve().parents[2]
HEAD = """
import socket, sys, ray
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
ray.init(address="local", include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=port, num_cpus=2,
         object_store_memory=80 * 2**20, _temp_dir=sys.argv[1], logging_level="ERROR")
print(f"http://127.0.0.1:{port}", flush=True)
sys.stdin.read()  # to its end: then this cluster goes, and no other
ray.shutdown()
"""


ENTRY = """
import shlex, sys
from roadsense.cloud import submit
def stated(command, config):
    code = {supervise!r}.format(values=dict(store=config.store, grace_s=20.0), standin={standin!r}, late="")
    return shlex.join(["python", "-c", code, *command, *{places!r}])
if {stand_in!r}:
    submit.entrypoint = stated
from roadsense.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""Runs the command line; with ``stand_in`` the supervisor on the cluster runs the stand-in instead of roadsense."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster of this machine alone, which wants a token.

    Attributes:
        address: of its job server.
        env: in which its token is known.
    """

    address: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def cluster(s3_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("ray")
    pytest.importorskip("aiohttp", reason="ray[default] is not installed")
    place = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short, for the paths of sockets are
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    env |= KEYS | {
        "AWS_ENDPOINT_URL": s3_server.url, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONPATH": str(REPO),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore",
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex,
    }  # fmt: skip
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD, place], env=env, cwd=tmp_path_factory.mktemp("head"), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Cluster(next((line.strip() for line in head.stdout if line.startswith("http")), ""), env)
    finally:
        head.stdin.close()
        try:
            head.wait(60)
        finally:
            head.kill()
            head.stdout.close()
            shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def job(cluster: Cluster, s3: Server, tmp_path: Path):
    """Starts ``roadsense job PART …`` in a process of its own."""
    started = []

    def start(part: str, *arguments: str, stand_in: bool = False, **more: str) -> subprocess.Popen[str]:
        places = ["--runs-dir", str(tmp_path / "runs"), "--datasets-dir", str(tmp_path / "datasets")]
        code = ENTRY.format(stand_in=stand_in, supervise=CODE, standin=str(STANDIN), places=places)
        command = [sys.executable, "-c", code, "job", part, "--address", cluster.address, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env={**cluster.env, **more}, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Waits for its end; returns exit code, stdout, stderr."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_verbs_run_there_and_their_own_codes_come_back(job, s3: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine")
    own = ["--store", STORE, "--max-hours", "1"]
    code, out, err = ended(job("submit", "store", "put", str(run.path), f"{STORE}/runs/mine", *own))
    assert code == 0 and f"{STORE}/runs/mine\n" in out, (out, err)
    assert "convoys/runs/mine/checksums.sha256" in s3.stored()
    assert len([key for key in s3.stored() if key.startswith("convoys/jobs/")]) == 2
    (run.path / "config.json").write_text("{}")
    code, out, _ = ended(job("submit", "--", "store", "put", str(run.path), f"{STORE}/runs/other"))
    assert code == 4 and "config.json: is missing or has changed" in out
    assert ended(job("submit", "generate", "--sed", "3"))[0] == 2


@pytest.mark.parametrize("code", [1, 3, 75])
def test_errors_failed_gates_and_stopped_work_are_told_apart(job, s3: Server, code: int) -> None:
    found, out, err = ended(job("submit", "pipeline", "--code", str(code), "--store", STORE, stand_in=True))
    assert found == code and "step 1\n" in out, (out, err)
    assert "convoys/datasets/d7/manifest.json" in s3.stored()


def test_a_job_that_is_stopped_saves_its_work_and_keeps_it(job, cluster: Cluster, s3: Server) -> None:
    process = job("submit", "pipeline", "--steps", "4000", "--store", STORE, stand_in=True)
    submission = next(line.split()[2] for line in process.stderr if line.startswith("roadsense: job "))
    assert "step 2\n" in iter(process.stdout.readline, "")
    stop = "import sys; from ray.job_submission import JobSubmissionClient as C; C(sys.argv[1]).stop_job(sys.argv[2])"
    subprocess.run([sys.executable, "-c", stop, cluster.address, submission], env=cluster.env, check=True, timeout=60)
    code, out, err = ended(process)
    assert code == 75 and "was stopped; the same command goes on" in err, (out, err)
    assert "saved\n" in out
    assert [key for key in s3.stored() if key.endswith("runs/s7/checkpoints/last.txt")]


def test_ctrl_c_leaves_the_job_to_itself_and_follow_takes_it_up(job, cluster: Cluster) -> None:
    process = job("submit", "pipeline", "--steps", "60", "--code", "3", stand_in=True)
    submission = next(line.split()[2] for line in process.stderr if line.startswith("roadsense: job "))
    assert "step 1\n" in iter(process.stdout.readline, "")
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    goes_on = f"`roadsense job follow {submission} --address {cluster.address}` goes on"
    stops = f"`ray job stop --address {cluster.address} {submission}` stops it"
    assert code == 75
    assert err.splitlines()[-1] == f"roadsense: job {submission} runs on without being followed; {goes_on}, {stops}."
    code, out, _ = ended(job("follow", submission))
    assert code == 3 and "step 60\n" in out


def test_a_job_that_nobody_knows_is_one_sentence(job) -> None:
    code, _, err = ended(job("follow", "nobodys"))
    assert code == 1 and err.startswith("roadsense: job nobodys cannot be followed (") and err.count("\n") == 1


def test_without_the_clusters_token_it_is_one_sentence(job, tmp_path: Path) -> None:
    code, _, err = ended(job("follow", "any", RAY_AUTH_TOKEN="another", HOME=str(tmp_path)))
    assert code == 1 and "no job server answers as it should (" in err and "Traceback" not in err


def test_what_runs_on_the_cluster_is_the_supervisor_with_what_was_asked_for() -> None:
    config = SubmitConfig(max_hours=2, store=STORE, address="http://localhost:1", cpus=4)
    told = entrypoint(["pipeline", "--seed", "7", "--run-id", "a b"], config)
    own = ["python", "-m", "roadsense", "job", "run", "--max-hours", "2", "--store", STORE, "--"]
    assert shlex.split(told) == [*own, "pipeline", "--seed", "7", "--run-id", "a b"]


class Young:
    """A client of a cluster that has just come up: its first answers are that it cannot start jobs yet."""

    def __init__(self, told: str) -> None:
        self.left, self.told = 2, told

    def submit_job(self, **job: object) -> str:
        self.left -= 1
        if self.left >= 0:
            raise RuntimeError(f"Request failed with status code 500: {self.told}")
        return f"job of {job['entrypoint']}"


def test_a_cluster_that_has_just_come_up_is_waited_for_and_other_errors_are_not(monkeypatch) -> None:
    monkeypatch.setattr(submission, "_POLL_S", 0.01)
    young = Young("No available agent to submit job, please try again later")
    assert submission._submitted(young, entrypoint="x") == "job of x" and young.left == -1
    broken = Young("no space left on device")
    with pytest.raises(RuntimeError, match="no space left"):
        submission._submitted(broken, entrypoint="x")
    assert broken.left == 1
    monkeypatch.setattr(submission, "_AGENT_WAIT_S", -1.0)
    with pytest.raises(RuntimeError, match="No available agent"):
        submission._submitted(Young("No available agent to submit job"), entrypoint="x")


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8265", "http://localhost:1", "https://[::1]:1", "http://127.9.9.9"]
)
def test_loopback_is_taken(address: str) -> None:
    assert FollowConfig(address=address).address == address


@pytest.mark.parametrize("address", ["http://10.0.0.1:8265", "http://head:8265", "http://localhost.example.org"])
def test_another_machine_is_refused_unless_it_is_allowed(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "submit", "--address", address, "pipeline"]) == 2
    told = f"roadsense: --address {address} is on another machine: whoever reaches Ray's job server,"
    assert capsys.readouterr().err.startswith(told)
    assert FollowConfig(address=address, allow_remote=True).address == address


@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "127.0.0.1:8265", "http://"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no address; give http"):
        FollowConfig(address=address)


def test_where_no_server_answers_it_is_one_sentence() -> None:
    pytest.importorskip("ray")
    with pytest.raises(RoadsenseError, match=r"http://127.0.0.1:1: no job server answers as it should"):
        submission.submit(["pipeline"], SubmitConfig(address="http://127.0.0.1:1"))


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Another job server: its address, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, format: str, *values: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
def test_the_environment_leads_no_job_to_another_machine(name: str, elsewhere, monkeypatch) -> None:
    pytest.importorskip("ray")
    other, asked = elsewhere
    monkeypatch.setenv(name, other)
    for ask in (
        lambda: submission.submit(["pipeline"], SubmitConfig(address="http://127.0.0.1:1")),
        lambda: submission.follow("any", FollowConfig(address="http://127.0.0.1:1")),
    ):
        with pytest.raises(RoadsenseError, match=r"http://127.0.0.1:1: no job server answers"):
            ask()
    assert asked == [] and os.environ[name] == other


def test_without_ray_one_sentence_names_the_extra() -> None:
    code = "import sys; sys.modules['ray'] = None; from roadsense.cli import main; sys.exit(main(sys.argv[1:]))"
    run = subprocess.run(
        [sys.executable, "-c", code, "job", "submit", "pipeline"], capture_output=True, text=True, check=False
    )
    told = 'roadsense: ray is not installed; install it with: pip install "roadsense[ray]".\n'
    assert (run.returncode, run.stdout, run.stderr) == (1, "", told)
