"""A real S3 server on loopback, which answers one request after the other, as if each were one step."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


class _OneAtATime:
    """S3 decides a conditional put in one step; moto looks first and writes then."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app, self._lock = app, threading.Lock()

    def __call__(self, *args: Any) -> Iterable[bytes]:
        with self._lock:
            return self._app(*args)


class Server:
    """Moto's S3 over HTTP.

    Attributes:
        url: what ``AWS_ENDPOINT_URL`` has to be.
    """

    def __init__(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self._server._server.app = _OneAtATime(self._server._server.app)
        self.url = "http://{}:{}".format(*self._server.get_host_and_port())
        self.client = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="root", aws_secret_access_key="root"
        )

    def bucket(self) -> str:
        """A new empty bucket, in a server that has no other."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")).close()
        self.client.create_bucket(Bucket="fleet")
        return "fleet"

    def check_permissions(self, after: str) -> None:
        """Refuses whoever has no permission, after so many more requests; "inf" for never."""
        path, plain = f"{self.url}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(path, after.encode(), plain, method="POST")).close()

    def content(self, key: str) -> bytes:
        """The bytes of an object."""
        data: bytes = self.client.get_object(Bucket="fleet", Key=key)["Body"].read()
        return data

    def stored(self) -> list[str]:
        """Keys of all objects."""
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket="fleet").get("Contents", [])]

    def remove_bucket(self) -> None:
        """Takes the bucket away, with all that is in it."""
        for key in self.stored():
            self.client.delete_object(Bucket="fleet", Key=key)
        self.client.delete_bucket(Bucket="fleet")

    def stop(self) -> None:
        """Ends the server."""
        self.client.close()
        self._server.stop()
        self._server._server.server_close()
