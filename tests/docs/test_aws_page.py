"""docs/aws.md: its commands are commands, its policies allow what is needed and nothing more."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError

from roadsense.cli import VERBS, main
from roadsense.options import parse
from roadsense.storage import download, upload
from roadsense.training.config import TrainConfig, read_train_config

from ..s3 import Server
from ..stored import make_run

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "aws.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("roadsense ")]
    return [shlex.split(line.replace("<", "").replace(">", ""), comments=True)[1:] for line in lines]


def flags_of(part: list[str], capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        main([*part, "--help"])
    return set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))


def test_its_commands_are_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(commands()) == 7
    for verb, part, *rest in commands():
        command = (
            next((place for place, word in enumerate(rest) if word in VERBS), len(rest)) if verb == "job" else None
        )
        used = {word for word in rest[:command] if word.startswith("--")} - {"--"}
        assert used <= flags_of([verb, part], capsys), rest


def test_the_job_it_shows_is_within_the_cap_it_states() -> None:
    from roadsense.cloud.budget import Budget

    for shown in [words for words in commands() if words[:2] == ["job", "submit"]]:
        value = dict(itertools.pairwise(shown))
        budget = Budget(
            max_hours=float(value["--max-hours"]), max_usd=float(value["--max-usd"]),
            usd_per_hour=float(value["--usd-per-hour"]), worker_usd_per_hour=float(value["--worker-usd-per-hour"]),
            max_workers=int(value["--max-workers"]),
        )  # fmt: skip
        assert f"= {budget.worst_usd:.2f} USD" in PAGE


def test_the_training_it_spreads_fits_the_clusters_workers_and_what_they_fetch_is_its_dataset() -> None:
    (shown,) = [words for words in commands() if "train" in words]
    config = parse(TrainConfig, "train", shown[shown.index("train") + 3 :], default=read_train_config("ppo"))
    cluster = yaml.safe_load((REPO / "cluster" / "aws.yaml").read_text(encoding="utf-8"))
    worker = cluster["available_node_types"]["worker"]
    assert config.ray_address == "auto" and config.workers == worker["max_workers"] * worker["resources"]["CPU"]
    (fetched,) = [yaml.safe_load(block)["setup_commands"] for block in blocks("yaml")]
    assert cluster["setup_commands"] == [] and shlex.split(fetched[0])[-1] == config.dataset_dir


def test_files_it_names_are_there() -> None:
    for name in re.findall(r"cluster/[a-z]+\.[a-z]+", PAGE):
        assert (REPO / name).is_file(), name


def test_its_policy_allows_the_store_and_no_deleting(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = [json.loads(block.replace("YOUR-BUCKET", "fleet")) for block in blocks("json")]
    iam = boto3.session.Session().client("iam")
    iam.create_user(UserName="machine")
    iam.put_user_policy(UserName="machine", PolicyName="store", PolicyDocument=json.dumps(policies[0]))
    key = iam.create_access_key(UserName="machine")["AccessKey"]
    iam.close()
    run = make_run(tmp_path / "mine")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    s3.check_permissions("0")
    try:
        upload(run.path, "s3://fleet/convoys/runs/mine")
        assert upload(run.path, "s3://fleet/convoys/runs/mine").moved == 0
        assert download("s3://fleet/convoys/runs/mine", tmp_path / "back").moved == 5
        client = boto3.session.Session().client("s3")
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(Bucket="fleet", Key="convoys/runs/mine/config.json")
        with pytest.raises(ClientError, match="AccessDenied"):
            client.put_object(Bucket="fleet", Key="of_others/config.json", Body=b"")
        client.close()
    finally:
        s3.check_permissions("inf")
