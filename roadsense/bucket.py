"""Objects in S3 below one prefix: put once and never overwritten, known by their SHA-256."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import Any

from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.extras import require

SCHEME = "s3://"
AT_ONCE = 8
"""Requests at the same time: most objects are small, and an answer takes longer than their bytes."""
_MOST_BYTES = 5 * 2**30
"""What S3 takes in one put; several parts would have no SHA-256 of the whole."""
_CONFLICT_TRIES = 5

_NO_PERMISSION = {"AccessDenied", "AllAccessDisabled", "Forbidden", "403"}
_BAD_CREDENTIALS = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_TAKEN = {"PreconditionFailed", "412"}
_CONFLICT = {"ConditionalRequestConflict", "409"}


class Bucket:
    """The objects below one ``s3://bucket/prefix``; names are relative to it.

    Credentials, region and endpoint are found as boto3 finds them: environment, profile, instance profile,
    ``AWS_ENDPOINT_URL``.

    Raises:
        UsageError: the address is none, or has no prefix.
        RoadsenseError: boto3 is not installed; of every method: S3 cannot be reached, or refuses.
    """

    def __init__(self, url: str) -> None:
        require("cloud")
        name, _, prefix = url.removeprefix(SCHEME).partition("/")
        prefix = prefix.rstrip("/")
        if not url.startswith(SCHEME) or not name:
            raise UsageError(f"{url!r} is no address in S3; give {SCHEME}BUCKET/PREFIX.")
        if not prefix:
            raise UsageError(f"{url}: has no prefix, and would mix with all else in the bucket; name a folder in it.")
        if not is_plain(prefix):
            raise UsageError(f"{url}: has a prefix with an empty part, '.' or '..'; name a plain folder.")
        self.name, self.prefix = name, prefix
        self.url = f"{SCHEME}{name}/{prefix}"
        with self._explained(self.url):
            self._client = _client()

    def names(self) -> dict[str, int]:
        """Name → bytes of every object.

        Raises:
            InputMismatchError: a name would lead out of a folder it was written to.
        """
        found = {}
        with self._explained(self.url):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{self.prefix}/")
            for entry in (entry for page in pages for entry in page.get("Contents", [])):
                name = entry["Key"].removeprefix(f"{self.prefix}/")
                if entry["Size"] == 0 and (not name or name.endswith("/")):
                    continue  # what consoles make to show an empty folder
                if not is_plain(name):
                    raise InputMismatchError(
                        f"{self.url}: holds an object {name!r}, which is no path within a folder; remove it."
                    )
                found[name] = int(entry["Size"])
        return found

    def digest(self, name: str) -> str | None:
        """SHA-256 (hex) of an object: the one S3 verified when it was put, else of its bytes; None without one."""
        try:
            with self._explained(f"{self.url}/{name}"):
                head = self._client.head_object(Bucket=self.name, Key=self._key(name), ChecksumMode="ENABLED")
        except _MissingError:
            return None
        with contextlib.suppress(KeyError, binascii.Error):  # without, or of several parts ("…-3"): read it
            return base64.b64decode(head["ChecksumSHA256"], validate=True).hex()
        return hashlib.sha256(self.fetch(name)).hexdigest()

    def put_new(self, name: str, data: bytes) -> bool:
        """Puts an object that is not there yet; False where the same is there already.

        Raises:
            InputMismatchError: there is one with another content, which stays as it is.
        """
        where, sha256 = f"{self.url}/{name}", hashlib.sha256(data)
        if len(data) > _MOST_BYTES:
            raise RoadsenseError(f"{where}: would have {len(data)} bytes, and S3 takes {_MOST_BYTES} at once.")
        for left in reversed(range(_CONFLICT_TRIES)):
            try:
                with self._explained(where):
                    self._client.put_object(
                        Bucket=self.name, Key=self._key(name), Body=data, IfNoneMatch="*",
                        ContentLength=len(data), ChecksumAlgorithm="SHA256",
                        ChecksumSHA256=base64.b64encode(sha256.digest()).decode(),
                    )  # fmt: skip
                return True
            except _TakenError:
                found = self.digest(name)
                if found == sha256.hexdigest():
                    return False
                raise differs(where) from None
            except _ConflictError:  # another put of it is under way: once that is done, it was there or was not
                if not left:
                    raise
                time.sleep(0.2)
        raise AssertionError("the last try returns or raises")

    def fetch(self, name: str) -> bytes:
        """The bytes of an object.

        Raises:
            InputMismatchError: they are not those whose checksum S3 keeps.
        """
        from botocore.exceptions import FlexibleChecksumError

        where = f"{self.url}/{name}"
        with self._explained(where):
            try:
                answer = self._client.get_object(Bucket=self.name, Key=self._key(name), ChecksumMode="ENABLED")
                data: bytes = answer["Body"].read()
            except FlexibleChecksumError:
                raise InputMismatchError(
                    f"{where}: has other bytes than its checksum states; remove it and upload it again."
                ) from None
        return data

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    @contextlib.contextmanager
    def _explained(self, where: str) -> Iterator[None]:
        """Turns what boto3 raises into one sentence that says what to do."""
        from botocore import exceptions as aws

        try:
            yield
        except aws.ClientError as error:
            raise self._refusal(where, error.response.get("Error", {}), error.operation_name) from None
        except (
            aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError, aws.SSOError,
            aws.TokenRetrievalError,
        ) as error:  # fmt: skip
            raise RoadsenseError(f"{where}: there are no credentials ({_told(error)}); {_CREDENTIALS}.") from None
        except (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError) as error:
            raise RoadsenseError(
                f"{where}: the connection failed ({_told(error)}); the same command goes on where it was."
            ) from None
        except aws.BotoCoreError as error:
            raise RoadsenseError(f"{where}: {_told(error)}; correct the address or the AWS settings.") from None

    def _refusal(self, where: str, answer: dict[str, Any], operation: str) -> RoadsenseError:
        code = str(answer.get("Code", "unknown"))
        if code in ("NoSuchKey", "404"):
            return _MissingError(f"{where}: there is no such object; list what there is with `roadsense store list`.")
        if code in _TAKEN:
            return _TakenError(f"{where}: is there already.")
        if code in _CONFLICT:
            return _ConflictError(f"{where}: is being written by somebody else; the same command tries again.")
        if code == "NoSuchBucket":
            return RoadsenseError(f"{SCHEME}{self.name}: there is no such bucket; make it, or name another one.")
        if code in _NO_PERMISSION:
            return RoadsenseError(
                f"{where}: these credentials may not do {operation}; have it allowed (docs/aws.md has a policy)."
            )
        if code in _BAD_CREDENTIALS:
            return RoadsenseError(f"{where}: the credentials are not accepted ({code}); {_CREDENTIALS}.")
        return RoadsenseError(f"{where}: {operation} failed ({code}: {answer.get('Message', '')}); try again.")


_CREDENTIALS = "log in again with `aws sso login`, set AWS_PROFILE, or give the machine an instance profile"


class _MissingError(RoadsenseError):
    """There is no such object."""


class _TakenError(RoadsenseError):
    """There is such an object already."""


class _ConflictError(RoadsenseError):
    """Somebody else is putting the same object."""


def differs(where: str) -> InputMismatchError:
    """The error for an object that is there with another content."""
    return InputMismatchError(f"{where}: is there with another content, and stays so; name another prefix.")


def is_plain(name: str) -> bool:
    """Whether a name leads to a place within a folder on every system."""
    return name.isprintable() and "\\" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _told(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _client() -> Any:
    import boto3
    from botocore.config import Config

    # retries are left to AWS_MAX_ATTEMPTS and AWS_RETRY_MODE
    waits = Config(connect_timeout=10, read_timeout=60, max_pool_connections=AT_ONCE)
    return boto3.session.Session().client("s3", config=waits)
