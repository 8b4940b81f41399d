"""Runs and datasets in S3, against a real HTTP server: put once, verified, and continued after an interruption."""

from __future__ import annotations

import base64
import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from roadsense.bucket import Bucket
from roadsense.cli import main
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.files import write_bytes
from roadsense.manifest import file_digest
from roadsense.runs import RunFolder
from roadsense.storage import LISTING, download, listing, upload

from .s3 import Server
from .stored import make_dataset, make_run

RUN = "s3://fleet/runs/mine"


def tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "mine")


def test_a_run_comes_back_as_it_went(s3: Server, run: RunFolder, tmp_path: Path) -> None:
    sent = upload(run.path, RUN)
    assert (sent.moved, sent.kept) == (5, 0)
    got = download(RUN, tmp_path / "deep" / "back")
    assert (got.moved, got.kept) == (5, 0)
    assert tree(tmp_path / "deep" / "back") == tree(run.path)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["back"]
    assert listing(RUN)["checkpoints/last.zip"] == 256 * 40
    summed = s3.client.head_object(Bucket="fleet", Key="runs/mine/config.json", ChecksumMode="ENABLED")[
        "ChecksumSHA256"
    ]
    assert base64.b64decode(summed).hex() == file_digest(run.path / "config.json")


def test_a_dataset_comes_back_as_it_went(s3: Server, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "d7")
    upload(root, "s3://fleet/datasets/d7")
    download("s3://fleet/datasets/d7", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(root)


def test_the_same_again_sends_and_fetches_nothing(s3: Server, run: RunFolder, tmp_path: Path) -> None:
    upload(run.path, RUN)
    when = s3.client.head_object(Bucket="fleet", Key="runs/mine/config.json")["LastModified"]
    time.sleep(1.1)  # S3 tells seconds
    again = upload(run.path, RUN + "/")
    assert (again.moved, again.kept) == (0, 5)
    assert s3.client.head_object(Bucket="fleet", Key="runs/mine/config.json")["LastModified"] == when
    download(RUN, tmp_path / "back")
    got = download(RUN, tmp_path / "back")
    assert (got.moved, got.kept) == (0, 5)


def test_another_content_is_refused_by_name_before_anything_is_added(s3: Server, run: RunFolder) -> None:
    s3.client.put_object(Bucket="fleet", Key="runs/mine/config.json", Body=b"of somebody else")
    with pytest.raises(InputMismatchError, match=r"runs/mine/config.json: is there with another content, and stays so"):
        upload(run.path, RUN)
    assert s3.stored() == ["runs/mine/config.json"] and s3.content("runs/mine/config.json") == b"of somebody else"


def test_an_object_put_by_other_tools_is_read_to_be_compared(s3: Server, run: RunFolder) -> None:
    s3.client.put_object(Bucket="fleet", Key="runs/mine/config.json", Body=(run.path / "config.json").read_bytes())
    assert upload(run.path, RUN).kept == 1


def test_what_does_not_belong_to_a_folder_is_not_mixed_with_it(s3: Server, run: RunFolder) -> None:
    s3.client.put_object(Bucket="fleet", Key="runs/mine/older.csv", Body=b"")
    with pytest.raises(InputMismatchError, match=r"older.csv: is not part of .*; name another prefix"):
        upload(run.path, RUN)
    s3.client.delete_object(Bucket="fleet", Key="runs/mine/older.csv")
    upload(run.path, RUN)
    write_bytes(run.path / "later.csv", b"")
    with pytest.raises(InputMismatchError, match=r"runs/mine: was uploaded whole, without later.csv"):
        upload(run.path, RUN)
    assert "runs/mine/later.csv" not in s3.stored()


def test_of_two_who_put_one_object_exactly_one_wins(s3: Server) -> None:
    barrier, told = threading.Barrier(2), {}

    def meet(**_: object) -> None:  # both have found nothing there
        barrier.wait(20)

    def put(data: bytes) -> None:
        bucket = Bucket("s3://fleet/race")
        bucket._client.meta.events.register("before-send.s3.PutObject", meet)
        try:
            told[data] = bucket.put_new("prize", data)
        except InputMismatchError as error:
            told[data] = str(error)

    racers = [threading.Thread(target=put, args=(data,)) for data in (b"one", b"other")]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(30)
    (winner,) = [data for data, said in told.items() if said is True]
    (loser,) = set(told) - {winner}
    assert s3.content("race/prize") == winner
    assert told[loser] == "s3://fleet/race/prize: is there with another content, and stays so; name another prefix."


def test_of_two_who_put_the_same_both_succeed_and_one_did_it(s3: Server) -> None:
    one, other = Bucket("s3://fleet/race"), Bucket("s3://fleet/race")
    assert [one.put_new("prize", b"same"), other.put_new("prize", b"same")] == [True, False]


SLOW = """
import sys, time
from pathlib import Path
import roadsense.bucket, roadsense.storage
whole = roadsense.bucket.Bucket.{method}
def slow(self, name, *args):
    time.sleep(0.8)
    return whole(self, name, *args)
roadsense.bucket.Bucket.{method} = slow
roadsense.storage.AT_ONCE = 1
from roadsense.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def slowly(s3: Server) -> Iterator[object]:
    """Starts a command line whose transfers of single objects are slow; ends it with the test."""
    started = []

    def start(method: str, *arguments: str) -> subprocess.Popen[bytes]:
        code = SLOW.format(method=method)
        started.append(subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(true, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 75)])
def test_an_upload_that_was_ended_goes_on_and_is_no_run_before(s3, slowly, run, tmp_path, signum, code) -> None:
    process = slowly("put_new", "store", "put", str(run.path), RUN)
    wait_until(lambda: len(s3.stored()) >= 2)
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Traceback" not in said
    there = len(s3.stored())
    assert 2 <= there < 5 and "runs/mine/checksums.sha256" not in s3.stored()
    with pytest.raises(RoadsenseError, match="its upload was not finished; upload it again, which goes on where"):
        download(RUN, tmp_path / "back")
    rest = upload(run.path, RUN)
    assert (rest.moved, rest.kept) == (5 - there, there)
    download(RUN, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(run.path)


def test_a_download_that_was_killed_leaves_no_folder_and_goes_on(s3, slowly, run, tmp_path) -> None:
    upload(run.path, RUN)
    process = slowly("fetch", "store", "get", RUN, str(tmp_path / "back"))
    part = tmp_path / ".back.part"
    wait_until(lambda: part.is_dir() and len(tree(part)) >= 2)
    with pytest.raises(RoadsenseError, match="back: another process is fetching it"):
        download(RUN, tmp_path / "back")
    process.kill()
    process.communicate(timeout=60)
    assert not (tmp_path / "back").exists()
    there = len([name for name in tree(part) if not Path(name).name.startswith(".")])
    rest = download(RUN, tmp_path / "back")
    assert 2 <= there < 5 and (rest.moved, rest.kept) == (5 - there, there)
    assert tree(tmp_path / "back") == tree(run.path) and not part.exists()


def test_half_a_file_of_an_earlier_download_is_fetched_again(s3: Server, run: RunFolder, tmp_path: Path) -> None:
    upload(run.path, RUN)
    write_bytes(tmp_path / ".back.part" / "checkpoints" / "last.zip", bytes(range(200)))
    write_bytes(tmp_path / ".back.part" / "of_another_run.csv", b"1")
    assert download(RUN, tmp_path / "back").moved == 5
    assert tree(tmp_path / "back") == tree(run.path)


def test_a_run_whose_objects_were_exchanged_is_refused_by_name(s3: Server, run: RunFolder, tmp_path: Path) -> None:
    upload(run.path, RUN)
    s3.client.put_object(Bucket="fleet", Key="runs/mine/config.json", Body=b'{"seed": 8}\n', ChecksumAlgorithm="SHA256")
    with pytest.raises(InputMismatchError, match=r"config.json: is missing or has changed since"):
        download(RUN, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_dataset_with_an_object_more_is_refused(s3: Server, tmp_path: Path) -> None:
    upload(make_dataset(tmp_path / "d7"), "s3://fleet/datasets/d7")
    s3.client.put_object(Bucket="fleet", Key="datasets/d7/train/a/more.xml", Body=b"<a/>")
    with pytest.raises(InputMismatchError, match=r"more.xml: is not listed in the manifest"):
        download("s3://fleet/datasets/d7", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_bytes_that_do_not_fit_their_checksum_are_refused(s3: Server, run: RunFolder, tmp_path: Path) -> None:
    upload(run.path, RUN)
    wrong = s3.client.head_object(Bucket="fleet", Key="runs/mine/STATUS", ChecksumMode="ENABLED")["ChecksumSHA256"]
    # moto takes what is stated for the checksum, where S3 would refuse: bytes that rotted behind it
    s3.client.put_object(
        Bucket="fleet", Key="runs/mine/config.json", Body=b"{}", ChecksumAlgorithm="SHA256", ChecksumSHA256=wrong
    )
    with pytest.raises(InputMismatchError, match=r"config.json: has other bytes than its checksum states"):
        download(RUN, tmp_path / "back")


def test_a_changed_run_or_dataset_is_not_uploaded(s3: Server, run: RunFolder, tmp_path: Path) -> None:
    write_bytes(run.path / "config.json", b"{}")
    with pytest.raises(InputMismatchError, match=r"config.json: is missing or has changed since the run was packaged"):
        upload(run.path, RUN)
    root = make_dataset(tmp_path / "d7")
    write_bytes(root / "params.json", b"[]")
    with pytest.raises(InputMismatchError, match=r"params.json: has changed since the dataset was generated"):
        upload(root, "s3://fleet/datasets/d7")
    assert s3.stored() == []


def test_a_run_that_was_stopped_is_uploaded_only_as_it_is_and_goes_on_elsewhere(s3, run, tmp_path) -> None:
    run.set_status("running gate")
    with pytest.raises(UsageError, match="is a run that is not finished; --as-it-is uploads it all the same"):
        upload(run.path, RUN)
    (run.path / "checksums.sha256").unlink()
    with pytest.raises(UsageError, match="is neither a finished run nor a dataset; --as-it-is"):
        upload(run.path, RUN)
    assert upload(run.path, RUN, as_it_is=True).moved == 5
    assert upload(run.path, RUN, as_it_is=True).kept == 5
    download(RUN, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(run.path)
    s3.client.put_object(Bucket="fleet", Key="runs/mine/config.json", Body=b"{}", ChecksumAlgorithm="SHA256")
    with pytest.raises(InputMismatchError, match="is not what was uploaded"):
        download(RUN, tmp_path / "other")


def test_files_of_the_moment_stay_and_links_are_not_followed(s3: Server, run: RunFolder, tmp_path: Path) -> None:
    write_bytes(run.path / ".lock", b"")
    upload(run.path, RUN)
    assert "runs/mine/.lock" not in s3.stored()
    (run.path / "secret").symlink_to("/etc/hostname")
    with pytest.raises(UsageError, match="secret: is a link, which is not followed"):
        upload(run.path, "s3://fleet/runs/other")
    assert not [key for key in s3.stored() if "other" in key]


def test_a_folder_that_holds_something_else_stays_as_it_is(s3: Server, run: RunFolder, tmp_path: Path) -> None:
    upload(run.path, RUN)
    make_run(tmp_path / "back")
    write_bytes(tmp_path / "back" / "config.json", b"mine")
    with pytest.raises(InputMismatchError, match=r"back: is there and differs in config.json; name another folder"):
        download(RUN, tmp_path / "back")
    assert (tmp_path / "back" / "config.json").read_bytes() == b"mine"
    (tmp_path / "empty").mkdir()
    assert download(RUN, tmp_path / "empty").moved == 5


@pytest.mark.parametrize("name", ["../../escaped", "a/../../escaped", "/escaped", "a//b", "a\\..\\b", "./a", "a\x7fb"])
def test_a_key_that_leads_out_of_the_folder_is_refused(s3: Server, run: RunFolder, tmp_path: Path, name: str) -> None:
    upload(run.path, RUN)
    s3.client.put_object(Bucket="fleet", Key=f"runs/mine/{name}", Body=b"x")
    with pytest.raises(InputMismatchError, match="which is no path within a folder; remove it"):
        download(RUN, tmp_path / "deep" / "er" / "back")
    assert not list(tmp_path.rglob("*escaped*")) and not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("s3://fleet", "s3://fleet: has no prefix, and would mix with all else in the bucket; name a folder in it."),
        ("s3://fleet//", "has no prefix"),
        ("s3://fleet/a/../b", "has a prefix with an empty part, '.' or '..'; name a plain folder."),
        ("s3:///mine", "'s3:///mine' is no address in S3; give s3://BUCKET/PREFIX."),
        ("https://fleet/mine", "is no address in S3"),
        ("runs/mine", "is no address in S3"),
    ],
)
def test_an_address_that_is_none_is_a_usage_error(s3, run, tmp_path, url, sentence, capsys) -> None:
    for arguments in (["put", str(run.path), url], ["get", url, str(tmp_path / "back")], ["list", url]):
        assert main(["store", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("roadsense: ") and sentence in err and err.count("\n") == 1


def refused(capsys: pytest.CaptureFixture[str], run: RunFolder, url: str = RUN) -> str:
    """The sentence with which an upload ends, which has exit code 1."""
    assert main(["store", "put", str(run.path), url]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_a_missing_bucket_is_named(s3: Server, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    said = "roadsense: s3://navy: there is no such bucket; make it, or name another one.\n"
    assert refused(capsys, run, "s3://navy/runs/mine") == said


def test_without_credentials_it_says_how_to_get_some(s3, run, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    said = refused(capsys, run)
    assert "there are no credentials (Unable to locate credentials); log in again with `aws sso login`, set" in said


def test_without_permission_it_says_for_what(s3: Server, run: RunFolder, capsys, monkeypatch) -> None:
    import boto3

    iam = boto3.session.Session().client("iam")
    iam.create_user(UserName="guest")
    key = iam.create_access_key(UserName="guest")["AccessKey"]
    iam.close()
    try:
        s3.check_permissions("0")
        assert "the credentials are not accepted (InvalidAccessKeyId)" in refused(capsys, run)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        said = refused(capsys, run)
        assert "s3://fleet/runs/mine: these credentials may not do ListObjectsV2; have it allowed (docs/aws.md" in said
    finally:
        s3.check_permissions("inf")


def test_a_server_that_cannot_be_reached_is_one_sentence(s3: Server, run, capsys, monkeypatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", nobody)
    said = refused(capsys, run)
    assert said.startswith("roadsense: s3://fleet/runs/mine: the connection failed (Could not connect to the endpoint")
    assert said.endswith("; the same command goes on where it was.\n")


def test_a_connection_that_breaks_off_is_one_sentence_and_the_download_goes_on(s3, run, capsys, monkeypatch, tmp_path):
    upload(run.path, RUN)
    with breaking_proxy(s3.url, after=6000) as broken:
        monkeypatch.setenv("AWS_ENDPOINT_URL", broken)
        assert main(["store", "get", RUN, str(tmp_path / "back")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "the connection failed (" in err
    assert not (tmp_path / "back").exists()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    assert main(["store", "get", RUN, str(tmp_path / "back")]) == 0
    assert tree(tmp_path / "back") == tree(run.path)


class breaking_proxy:
    """Hands connections on to a server, and breaks all of them off after so many bytes of its answers."""

    def __init__(self, url: str, after: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._target, self._left = (host, int(port)), after
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ends = self._listener.accept()[0], socket.create_connection(self._target)
                self._sockets += ends
                for source, sink, answers in ((*ends, False), (*ends[::-1], True)):
                    self._threads.append(threading.Thread(target=self._pump, args=(source, sink, answers)))
                    self._threads[-1].start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if answers:
                    data, self._left = data[: max(self._left, 0)], self._left - len(data)
                sink.sendall(data)
                if self._left <= 0:
                    break
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for one in (self._listener, *self._sockets):
            one.close()


def test_the_command_line_puts_lists_and_gets(s3: Server, run: RunFolder, tmp_path, capsys) -> None:
    assert main(["store", "put", str(run.path), RUN]) == 0
    assert capsys.readouterr() == (f"{RUN}\n", f"{run.path}: 5 files moved, 0 were there\n")
    assert main(["store", "list", RUN]) == 0
    assert "       10240 checkpoints/last.zip\n" in capsys.readouterr().out
    assert main(["store", "get", RUN, str(tmp_path / "back")]) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'back'}\n", f"{RUN}: 5 files moved, 0 were there\n")
    assert main(["store", "get", "s3://fleet/runs/nobodys", str(tmp_path / "none")]) == 1
    assert "there is nothing; `roadsense store list`" in capsys.readouterr().err
    assert main(["store", "putt"]) == 2
    assert capsys.readouterr().err == "roadsense: store needs to be told what to do, not 'putt'; did you mean 'put'?\n"
    assert main(["store", "put", str(tmp_path / "gone"), RUN]) == 2
    assert "gone: is no folder; name a run folder or the root of a dataset." in capsys.readouterr().err


def test_the_listing_of_a_folder_as_it_is_stays_in_the_store(s3: Server, run: RunFolder, tmp_path: Path) -> None:
    upload(run.path, RUN, as_it_is=True)
    download(RUN, tmp_path / "back")
    assert f"runs/mine/{LISTING}" in s3.stored() and not (tmp_path / "back" / LISTING).exists()


def test_neither_engine_nor_learning_is_needed(s3: Server, run: RunFolder, tmp_path: Path) -> None:
    code = (
        "import sys; from roadsense.cli import main; code = main(sys.argv[1:])\n"
        "print([name for name in ('torch', 'numba', 'libsumo', 'stable_baselines3', 'ray') if name in sys.modules])\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "store", "put", str(run.path), RUN]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"{RUN}\n[]\n"
