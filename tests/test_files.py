import os
import signal
import stat
import subprocess
import sys

import pytest

from roadsense.errors import RoadsenseError
from roadsense.files import write_bytes, write_json, write_text


def test_a_file_is_replaced_in_one_piece(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "first")
    with open(path) as reader:
        write_text(path, "second")
        assert reader.read() == "first"  # who reads it meanwhile never sees a part of either
    assert path.read_text() == "second"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_a_failure_in_the_middle_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_text(path, "older")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "newer")
    assert path.read_text() == "older"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RoadsenseError, match=r"file/x\.txt: cannot be written \(.+\); free space or choose a folder"):
        write_bytes(tmp_path / "file" / "x.txt", b"")


def test_a_full_disk_is_one_sentence_and_leaves_the_older_file(tmp_path):
    """A file may not grow beyond 1 KiB: the same error as a full disk, from the same place."""
    path = tmp_path / "file.txt"
    write_text(path, "older")
    code = (
        "import resource, signal, sys; from pathlib import Path; from roadsense.files import write_bytes;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024));"
        "write_bytes(Path(sys.argv[1]), b'x' * 4096)"
    )
    assert hasattr(signal, "SIGXFSZ")
    failed = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert f"RoadsenseError: {path}: cannot be written (File too large)" in failed.stderr
    assert path.read_text() == "older"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file.txt", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o640


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []
