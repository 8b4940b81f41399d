"""Runs and datasets to and from S3: nothing is overwritten, all is verified, and what was interrupted goes on."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from roadsense.bucket import AT_ONCE, Bucket, differs
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.files import cannot_write, write_bytes
from roadsense.manifest import MANIFEST_NAME, file_digest, read_dataset
from roadsense.progress import progress_bar
from roadsense.runs import CHECKSUMS, STATUS, RunFolder

LISTING = ".listing.sha256"
"""What seals an upload of a folder that has no checksums of its own; it stays in S3."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a transfer came to."""

    moved: int
    """Files that were sent or fetched."""
    kept: int
    """Files that were there already, with the same content."""

    def __str__(self) -> str:
        return f"{self.moved} files moved, {self.kept} were there"


def upload(folder: Path, url: str, *, as_it_is: bool = False, progress: bool = True) -> Transfer:
    """Puts a finished run or a dataset below ``url``; the file that seals it comes last.

    Args:
        folder: the run or dataset, which is verified first.
        url: ``s3://bucket/prefix``, which becomes the folder.
        as_it_is: take any folder, with checksums of the moment: a run that was stopped.
        progress: whether to show a bar on stderr.

    Raises:
        UsageError: the folder is neither, or the address is none.
        InputMismatchError: a file has changed since it was summed, or something else lies below ``url`` already;
            nothing of that was changed.
        RoadsenseError: S3 cannot be reached, or refuses; the same call goes on where it was.
    """
    names = _files(folder)
    bucket = Bucket(url)
    seal = LISTING if as_it_is else _seal(names)
    if not as_it_is:
        if seal not in names:
            raise UsageError(
                f"{folder}: is neither a finished run nor a dataset; --as-it-is uploads it as it is at the moment."
            )
        _verify(folder, seal)
    there = set(bucket.names())
    for foreign in sorted(there - {*names, seal}):
        raise InputMismatchError(f"{bucket.url}/{foreign}: is not part of {folder}; name another prefix.")
    for new in sorted(names - there) if seal in there else ():
        raise InputMismatchError(f"{bucket.url}: was uploaded whole, without {new}; name another prefix.")
    digests: dict[str, str] = {}

    def put(name: str) -> bool:
        data = (folder / name).read_bytes()
        digests[name] = hashlib.sha256(data).hexdigest()
        if name in there and bucket.digest(name) != digests[name]:
            raise differs(f"{bucket.url}/{name}")
        return name not in there and bucket.put_new(name, data)

    # what is there comes first, so that another content is met before anything is added to it
    _in_parallel(put, sorted(names & there), progress)
    moved = _in_parallel(put, sorted(names - there - {seal}), progress)
    if as_it_is:
        moved += bucket.put_new(LISTING, _lines(digests))
    elif seal not in there:
        moved += put(seal)
    return Transfer(moved=moved, kept=len(names | {seal}) - moved)


def download(url: str, folder: Path, *, progress: bool = True) -> Transfer:
    """Fetches what ``upload`` put below ``url`` into a new folder, which appears whole and verified, or not at all.

    Args:
        url: ``s3://bucket/prefix``.
        folder: where it shall be; what was fetched before an interruption waits beside it.
        progress: whether to show a bar on stderr.

    Raises:
        InputMismatchError: a file is not what its checksum states, or the folder holds something else already.
        RoadsenseError: there is nothing, the upload was not finished, or S3 cannot be reached.
    """
    bucket = Bucket(url)
    there = set(bucket.names())
    seal = _seal(there)
    if not there:
        raise RoadsenseError(f"{bucket.url}: there is nothing; `roadsense store list` shows what lies below a prefix.")
    if seal not in there:
        raise RoadsenseError(f"{bucket.url}: its upload was not finished; upload it again, which goes on where it was.")
    listing = bucket.fetch(LISTING) if seal == LISTING else b""
    names = there - {LISTING}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        for name in sorted(names):
            if not (folder / name).is_file() or file_digest(folder / name) != bucket.digest(name):
                raise InputMismatchError(f"{folder}: is there and differs in {name}; name another folder.")
        _verify(folder, seal, listing)
        return Transfer(moved=0, kept=len(names))
    with _beside(folder) as part:
        for stale in _files(part, hidden=True) - names:
            (part / stale).unlink()

        def get(name: str) -> bool:
            target = part / name
            if target.is_file() and file_digest(target) == bucket.digest(name):
                return False
            write_bytes(target, bucket.fetch(name))
            return True

        moved = _in_parallel(get, sorted(names), progress)
        _verify(part, seal, listing)
        try:
            os.replace(part, folder)
        except OSError as error:
            raise cannot_write(folder, error) from None
    return Transfer(moved=moved, kept=len(names) - moved)


def listing(url: str) -> dict[str, int]:
    """Name → bytes of every object below ``url``, by name.

    Raises:
        RoadsenseError: S3 cannot be reached, or refuses.
    """
    return dict(sorted(Bucket(url).names().items()))


def _files(folder: Path, *, hidden: bool = False) -> set[str]:
    """Names of the files in a folder; hidden ones are of the moment.

    Raises:
        UsageError: it is no folder, or holds a link: what that leads to may be anybody's.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder; name a run folder or the root of a dataset.")
    found = set()
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise UsageError(f"{path}: is a link, which is not followed; put the file itself there.")
        if path.is_file() and (hidden or not path.name.startswith(".")):
            found.add(path.relative_to(folder).as_posix())
    return found


def _seal(names: Collection[str]) -> str:
    """Name of the file that says a folder of these files is whole: it is put last."""
    if LISTING in names:
        return LISTING
    return CHECKSUMS if CHECKSUMS in names or STATUS in names else MANIFEST_NAME


def _verify(folder: Path, seal: str, listing: bytes = b"") -> None:
    """Re-hashes a folder by its own checksums, or by a listing that was made of it.

    Raises:
        InputMismatchError: a file was changed or is missing; names it.
        UsageError: the run is not finished.
    """
    if seal == MANIFEST_NAME:
        return read_dataset(folder).verify()
    if seal == CHECKSUMS:
        run = RunFolder(folder)
        if not run.complete:
            raise UsageError(f"{folder}: is a run that is not finished; --as-it-is uploads it all the same.")
        return run.verify()
    if _lines({name: file_digest(folder / name) for name in _files(folder)}) != listing:
        raise InputMismatchError(f"{folder}: is not what was uploaded; remove it and download it again.")


def _lines(digests: dict[str, str]) -> bytes:
    """A listing of name → SHA-256 in the format of sha256sum."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A place beside a folder for what is not whole yet, for one process at a time.

    Raises:
        RoadsenseError: another process is at work in it, or it cannot be written.
    """
    part = folder.absolute().parent / f".{folder.absolute().name}.part"
    try:
        part.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
    except BlockingIOError:
        raise RoadsenseError(f"{folder}: another process is fetching it; wait for it or name another folder.") from None
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            part.rmdir()  # where nothing was fetched


def _in_parallel(work: Callable[[str], bool], names: Collection[str], progress: bool) -> int:
    """Does the work for every name, several at a time; returns for how many it said True."""
    done = 0
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        with progress_bar(len(names), "file", visible=progress and bool(names)) as bar:
            for one in as_completed([pool.submit(work, name) for name in names]):
                done += one.result()
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, only what is under way is waited for
    return done
