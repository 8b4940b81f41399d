"""The notice of a spot machine, asked for at a real HTTP server that wants tokens."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from roadsense.cloud.spot import SpotNotice, Watch, metadata_url

from .metadata import MetadataServer

NOTICE = {"action": "terminate", "time": "2026-12-01T08:22:00Z"}


def test_there_is_no_notice_until_there_is_one(metadata: MetadataServer) -> None:
    spot = SpotNotice(metadata.url)
    assert [spot.poll(), spot.poll()] == [None, None]
    metadata.notice = NOTICE
    assert spot.poll() == "this spot machine will terminate at 2026-12-01T08:22:00Z"
    assert metadata.asked == ["/latest/meta-data/spot/instance-action"] * 3


def test_a_token_that_has_run_out_is_asked_for_again(metadata: MetadataServer) -> None:
    spot = SpotNotice(metadata.url)
    spot.poll()
    metadata.token, metadata.notice = "second", NOTICE
    assert spot.poll() is not None


def test_a_proxy_is_not_asked_for_the_machines_own_address(metadata, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    metadata.notice = NOTICE
    assert SpotNotice(metadata.url).poll() is not None


def test_a_notice_that_cannot_be_read_is_a_notice(metadata: MetadataServer) -> None:
    metadata.notice = {"what": "else"}
    assert SpotNotice(metadata.url).poll() == "this spot machine will be taken away at an unknown time"


def test_where_nothing_answers_there_is_no_notice() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert SpotNotice(f"http://127.0.0.1:{free.getsockname()[1]}").poll() is None


def test_an_answer_that_is_no_http_is_no_notice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert SpotNotice(f"http://127.0.0.1:{server.getsockname()[1]}").poll() is None
        thread.join(5)


def test_a_watch_notes_the_notice_and_ends(metadata: MetadataServer) -> None:
    watch = Watch(metadata.url, every_s=0.02)
    watch.start()
    time.sleep(0.1)
    assert watch.notice is None and watch.is_alive()
    metadata.notice = NOTICE
    watch.join(5)
    assert not watch.is_alive() and "terminate" in str(watch.notice)


def test_a_watch_can_be_ended_and_may_have_nobody_to_ask(metadata: MetadataServer) -> None:
    for url in (metadata.url, None):
        watch = Watch(url, every_s=60)
        watch.start()
        begun = time.monotonic()
        watch.stop()
        assert not watch.is_alive() and time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "http://169.254.169.254"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9/"}, "http://127.0.0.1:9"),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, None),
    ],
)
def test_where_to_ask_is_what_the_tools_of_aws_take_too(monkeypatch, variables, url) -> None:
    for name in ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert metadata_url() == url
