"""The files in cluster/: what Ray and EC2 make of aws.yaml, and that userdata.sh keeps and ends everything."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml

from ..s3 import Server

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
USERDATA = CLUSTER / "userdata.sh"
SECRETS = re.compile(r"AKIA[0-9A-Z]{12}|aws_secret|secret_access_key|BEGIN [A-Z ]*PRIVATE KEY|ghp_", re.IGNORECASE)


@pytest.fixture
def config() -> dict[str, Any]:
    stated: dict[str, Any] = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="utf-8"))
    return stated


def test_it_is_what_rays_schema_asks_for_and_its_defaults_add_nothing(config: dict[str, Any]) -> None:
    ray = pytest.importorskip("ray")
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(config, schema)
    whole = prepare_config(config)
    validate_config(whole)
    for name in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert whole[name] == []  # which of Ray's defaults would install another Ray


def test_the_head_is_on_demand_and_does_no_work_and_workers_are_spot_at_a_bounded_price(config: dict[str, Any]) -> None:
    head, worker = (config["available_node_types"][name] for name in ("head", "worker"))
    assert config["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0} and "InstanceMarketOptions" not in head["node_config"]
    market = worker["node_config"]["InstanceMarketOptions"]
    assert market["MarketType"] == "spot" and float(market["SpotOptions"]["MaxPrice"]) <= 0.25
    assert config["max_workers"] == worker["max_workers"] == 4 and worker["min_workers"] == 0
    assert 0 < config["idle_timeout_minutes"] <= 10


def test_every_machine_switches_itself_off_first_and_is_gone_then(config: dict[str, Any]) -> None:
    for node in config["available_node_types"].values():
        first, second = node["node_config"]["UserData"].splitlines()[:2]
        assert (first, second) == ("#!/bin/bash", "shutdown -h +720")
        assert node["node_config"]["InstanceInitiatedShutdownBehavior"] == "terminate"
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    assert config["provider"]["cache_stopped_nodes"] is False


def test_the_dashboard_is_on_loopback_alone(config: dict[str, Any]) -> None:
    (start,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert re.findall(r"--dashboard-host=(\S+)", start) == ["127.0.0.1"]
    assert "IpPermissions" not in config["provider"]["security_group"]


def test_there_is_no_secret_in_any_file() -> None:
    for file in CLUSTER.iterdir():
        assert not SECRETS.search(file.read_text(encoding="utf-8")), file
    assert SECRETS.search("AWS_SECRET_ACCESS_KEY=x")


def test_rays_own_provider_makes_these_machines_of_it(s3: Server, config, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("ray")
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the key of the machines there
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    session = boto3.session.Session()
    iam, ec2 = session.client("iam"), session.client("ec2")
    for name in ("roadsense-head", "roadsense-worker"):
        iam.create_instance_profile(InstanceProfileName=name)
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="roadsense-cluster", Description="ours", VpcId=vpc)["GroupId"]
    ours = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "198.51.100.7/32"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ours])

    whole = bootstrap_aws(prepare_config(config))
    provider = AWSNodeProvider(whole["provider"], "roadsense")
    for name in ("head", "worker"):
        tags = {"ray-node-type": name, "ray-node-name": name, "ray-user-node-type": name}
        provider.create_node(whole["available_node_types"][name]["node_config"], tags, 1)
    made = [one for page in ec2.describe_instances()["Reservations"] for one in page["Instances"]]
    kinds = sorted((one.get("InstanceLifecycle", "on demand"), one["InstanceType"]) for one in made)
    assert kinds == [("on demand", "m6i.large"), ("spot", "c6i.2xlarge")]
    for one in made:
        data = ec2.describe_instance_attribute(InstanceId=one["InstanceId"], Attribute="userData")["UserData"]["Value"]
        assert base64.b64decode(data).decode().startswith("#!/bin/bash\nshutdown -h +720\n")
        assert [of["GroupId"] for of in one["SecurityGroups"]] == [group]
    (kept,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert [rule["IpRanges"] for rule in kept["IpPermissions"]] == [[{"CidrIp": "198.51.100.7/32"}]]


# ---- userdata.sh

STUB = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$CALLS"
"""
DOCKER = (
    STUB
    + """case "$1 $3" in
  "run roadsense-job")
    echo "working"
    echo kept >"$WORK/runs/result.txt"
    echo $$ >"$WORK/docker.pid"
    trap 'exit 75' TERM  # in the background bash ignores INT
    for _ in $(seq "${WORK_TICKS:-0}"); do sleep 0.05; done
    exit "${CODE:-0}"
    ;;
  "stop "*) [ ! -f "$WORK/docker.pid" ] || kill "$(cat "$WORK/docker.pid")" ;;
esac
"""
)


@pytest.fixture
def machine(tmp_path: Path):
    """Starts userdata.sh among stubs that note how they are called; ``calls()`` are those, in order."""
    stubs, started = tmp_path / "bin", []
    stubs.mkdir()
    failing = STUB + '[ "$FAIL_AWS" != "$1" ] || exit 1\n'
    texts = {"docker": DOCKER, "aws": failing, "shutdown": STUB, "systemctl": STUB, "chown": STUB, "curl": "exit 7\n"}
    for name, text in texts.items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)

    def start(**variables: str) -> subprocess.Popen[bytes]:
        env = {
            "PATH": f"{stubs}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "WORK": str(tmp_path / "work"),
            "STORE": "s3://fleet/convoys", "FAIL_AWS": "", **variables,
        }  # fmt: skip
        started.append(subprocess.Popen(["bash", str(USERDATA)], env=env))
        return started[-1]

    start.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    start.work = tmp_path / "work"
    yield start
    for process in started:
        process.kill()
        process.wait()


def check_end(calls: list[str]) -> None:
    """It switches itself off first for later, and at last, after log and runs were uploaded."""
    assert calls[0].startswith("shutdown -h +") and calls[-1] == "shutdown -h now"
    log, runs = calls[-3:-1]
    assert log.startswith("aws s3 cp ") and "/log.txt s3://fleet/convoys/machines/" in log
    assert runs.startswith("aws s3 cp ") and " --recursive " in runs and "/runs s3://fleet/convoys/machines/" in runs


@pytest.mark.parametrize("code", [0, 1, 3, 75])
def test_log_and_runs_are_kept_and_the_machine_is_off_after_success_and_failure(machine, code: int) -> None:
    assert machine(CODE=str(code), MAX_HOURS="1.51").wait(90) == code
    calls = machine.calls()
    check_end(calls)
    assert calls[0] == "shutdown -h +91"  # never sooner than the hours asked for, by less than a minute later
    (job,) = [call for call in calls if "--name roadsense-job" in call]
    assert "roadsense job run --store s3://fleet/convoys --max-hours 1.51 --max-usd 2 --usd-per-hour 0.40" in job
    assert job.endswith("-- pipeline --seed 7") and "--shm-size 2g" in job and "--used-hours " in job
    log = (machine.work / "log.txt").read_text()
    assert "working\n" in log and f"ends with exit code {code}\n" in log


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_work_keeps_all_and_the_machine_is_off(machine, signum: int) -> None:
    process = machine(WORK_TICKS="4000")
    end = time.monotonic() + 60
    while not (machine.work / "docker.pid").is_file():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signum)
    assert process.wait(90) == 143
    calls = machine.calls()
    check_end(calls)
    assert "docker stop --time 300 roadsense-job" in calls


@pytest.mark.parametrize("fails", ["ecr", "s3"])
def test_the_machine_is_off_also_where_registry_or_bucket_fail(machine, fails: str) -> None:
    assert machine(FAIL_AWS=fails).wait(90) == (1 if fails == "ecr" else 0)
    calls = machine.calls()
    check_end(calls)
    assert any("--name roadsense-job" in call for call in calls) is (fails == "s3")


def test_a_script_that_was_not_edited_runs_nothing_and_the_machine_is_off(machine) -> None:
    assert machine(STORE="s3://YOUR-BUCKET/convoys").wait(90) == 2
    assert machine.calls()[-1] == "shutdown -h now" and not [call for call in machine.calls() if " run " in call]


def test_a_run_that_goes_on_is_fetched_first(machine) -> None:
    assert machine(RESUME="s3://fleet/convoys/attempts/a/runs/s7").wait(90) == 0
    fetch, job = [call for call in machine.calls() if call.startswith("docker run")]
    assert fetch.endswith("roadsense store get s3://fleet/convoys/attempts/a/runs/s7 runs/s7") and "job run" in job


def test_the_script_is_clean() -> None:
    subprocess.run(["bash", "-n", str(USERDATA)], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", str(USERDATA)], check=True)


def test_its_flags_are_those_of_the_job(machine, capsys: pytest.CaptureFixture[str]) -> None:
    from roadsense.cli import main

    assert machine().wait(90) == 0
    (job,) = [call for call in machine.calls() if "--name roadsense-job" in call]
    words = job.partition(" roadsense ")[2].split()
    at = words.index("--max-usd") + 1
    assert main([*words[:at], "0.01", *words[at + 1 :]]) == 2  # parsed, and refused by its sum before it begins
    assert "the worst case is 4 h × (0.4) USD/h = 1.60 USD, above --max-usd 0.01" in capsys.readouterr().err
