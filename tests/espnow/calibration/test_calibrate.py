"""The verb: what it writes, what it says where, and what it refuses."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from roadsense.cli import main
from roadsense.espnow.params import RadioParams
from roadsense.espnow.profiles import read_params


@pytest.fixture(scope="module")
def written(short_drive, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "field.json"
    assert main(["calibrate", str(short_drive.folder), "--out", str(out)]) == 0
    return out


def test_the_params_file_is_one_that_the_emulator_reads(written):
    params = read_params(written)
    assert isinstance(params, RadioParams)
    assert params.name == "field"
    assert {"source", "beacon", "loss", "latency", "gps", "noise", "phy"} <= set(params.provenance)


def test_the_report_shows_figures_findings_and_plots(written):
    page = written.with_suffix(".html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "relayed_rows" in page and "loss at 20–50 m" in page and "latency scale" in page
    params = read_params(written)
    assert all(f"<td>{topic}</td>" in page for topic in params.provenance)
    assert not re.search(r"20\d\d-\d\d-\d\d|/tmp/(?!.*logs)", page.partition("base64")[0].partition("Findings")[0])


def test_figures_go_to_stdout_findings_to_stderr_and_equal_logs_give_equal_bytes(
    short_drive, written, tmp_path, capsys
):
    out = tmp_path / "field.json"
    elsewhere = shutil.copytree(short_drive.folder, tmp_path / "elsewhere")
    files = [str(path) for path in sorted(elsewhere.glob("*.csv"))]
    assert main(["calibrate", *files, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "loss at 0–20 m" in said.out and said.out.rstrip().endswith(f"{out}\n{out.with_suffix('.html')}")
    assert "[relayed_rows]" in said.err and "[relayed_rows]" not in said.out
    for suffix in (".json", ".html"):
        assert out.with_suffix(suffix).read_bytes() == written.with_suffix(suffix).read_bytes()


def test_a_link_is_excluded_by_name(short_drive, tmp_path, capsys):
    out = tmp_path / "x.json"
    folder = str(short_drive.folder)
    assert main(["calibrate", folder, "--out", str(out), "--exclude", "V003:V001", "--name", "named"]) == 0
    assert "V003→V001: loses" in capsys.readouterr().err
    params = read_params(out)
    assert params.name == "named" and "without the bad links V003→V001" in params.provenance["loss"]


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--out", "x.json", "--exclude", "V009:V001"], 2, "did you mean"),
        (["--out", "x.json", "--exclude", "V009"], 2, "sender and receiver, as V003:V001"),
        (["--out", "x.txt"], 2, "end in .json"),
        (["--out", "x.json", "--edges-m", "10", "20"], 2, "must ascend from 0"),
        (["--out", "x.json", "--edges-m", "0", "20", "20"], 2, "must ascend from 0"),
        (["--out", "x.json", "--edges-m", "0", "inf"], 2, "must ascend from 0 to 5000 at most"),
        (["--out", "x.json", "--edges-m", "0", "nan"], 2, "must ascend from 0"),
        (["--out", "x.json", "--confidence", "95"], 2, "outside of 0.5 to 1"),
        (["--out", "x.json", "--least-latency-ms", "-1"], 2, "outside of 0 to 1000"),
        (["--out", "x.json", "--leest-latency-ms", "1"], 2, "did you mean '--least-latency-ms'"),
        ([], 2, "--out"),
    ],
)
def test_impossible_options(short_drive, tmp_path, monkeypatch, capsys, options, code, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate", str(short_drive.folder), *options]) == code
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) <= 8
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(short_drive, tmp_path, capsys):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert main(["calibrate", str(short_drive.folder), "--out", str(tmp_path / "x.json")]) == 1
    finally:
        tmp_path.chmod(stat.S_IRWXU)
    assert "cannot be written" in capsys.readouterr().err


def test_a_file_in_the_way_of_the_folder(short_drive, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["calibrate", str(short_drive.folder), "--out", str(tmp_path / "file" / "x.json")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_folder_without_logs(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["calibrate", str(tmp_path / "empty"), "--out", str(tmp_path / "x.json")]) == 1
    assert "no .csv file is there" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
    assert main(["calibrate", str(tmp_path / "nowhere"), "--out", str(tmp_path / "x.json")]) == 2


def _lower(path):
    if path.name.endswith("_rx.csv"):
        path.write_text(path.read_text().replace("V00", "v00"))


def _first_rows(path, n=1):
    path.write_text("\n".join(path.read_text().splitlines()[: n + 1]))


def _few_receptions(path):
    if path.name.endswith("_rx.csv"):
        _first_rows(path, 3)


def _other_stamps(path):
    if path.name.endswith("_tx.csv"):
        head, *body = path.read_text().splitlines()
        cells = [line.split(",") for line in body]
        path.write_text("\n".join([head, *(",".join([one[0], str(int(one[1]) + 7), *one[2:]]) for one in cells)]))


@pytest.mark.parametrize("spoil", [_lower, _first_rows, _few_receptions, _other_stamps])
def test_logs_that_tell_nothing_about_the_radio_are_refused(short_drive, tmp_path, capsys, spoil):
    """Or convoy would be written under another name."""
    folder = shutil.copytree(short_drive.folder, tmp_path / "logs")
    for path in folder.glob("*.csv"):
        spoil(path)
    assert main(["calibrate", str(folder), "--out", str(tmp_path / "x.json")]) == 1
    said = capsys.readouterr()
    assert "neither loss nor latency can be measured" in said.err.splitlines()[-1] and said.out == ""
    assert "[never_heard]" in said.err and "[no_overlap]" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_all_links_excluded(short_drive, tmp_path, capsys):
    names = ("V001", "V002", "V003")
    links = [f"{one}:{other}" for one in names for other in names if one != other]
    out = tmp_path / "x.json"
    assert main(["calibrate", str(short_drive.folder), "--out", str(out), "--exclude", *links]) == 0
    assert "[loss_not_measured]" in capsys.readouterr().err
    assert "all links are left out" in out.with_suffix(".html").read_text()


def test_exclude_takes_all_words_behind_it_and_says_so(short_drive, tmp_path, capsys):
    assert main(["calibrate", "--exclude", "V003:V001", str(short_drive.folder), "--out", "x.json"]) == 2
    assert "name them before --exclude" in capsys.readouterr().err
    assert main(["calibrate", str(short_drive.folder), "--out", "x.json", "--exclude", "V003:V009"]) == 2
    said = capsys.readouterr().err
    assert "V003:V00" in said.partition("did you mean")[2] and "→" not in said.partition("did you mean")[2]


def test_without_matplotlib_the_report_has_tables_and_says_so(short_drive, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("roadsense.espnow.calibration.report.find_spec", lambda name: None)
    out = tmp_path / "x.json"
    assert main(["calibrate", str(short_drive.folder), "--out", str(out)]) == 0
    assert 'pip install "roadsense[train]"' in capsys.readouterr().err
    page = out.with_suffix(".html").read_text()
    assert "data:image" not in page and "matplotlib is not installed" in page and "latency scale" in page


def test_every_finding_stands_in_the_page_on_calibration_and_no_other():
    root = Path(__file__).parents[3]
    sources = "".join(path.read_text() for path in (root / "roadsense/espnow/calibration").glob("*.py"))
    said = set(re.findall(r'findings\.add\(\s*"(\w+)"', sources))
    table = (root / "docs/calibration.md").read_text().partition("| Code |")[2].partition("\n\n")[0]
    listed = {
        code for row in table.splitlines() for code in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    assert said == listed


def _round_trips(path, distance=True, n=12_000):
    """Echoes over two ways of latency 2 + gamma(1.6, 1.06) ms, each lost with 0.1, written in whole milliseconds."""
    rng = np.random.default_rng(4)
    sent = 5000.3 + 100.0 * np.arange(n)
    back = sent + 4.0 + rng.gamma(1.6, 1.06, (2, n)).sum(0)
    lost = (rng.random((2, n)) < 0.1).any(0)
    rows = [
        f"{i},{int(sent[i])},{'' if lost[i] else int(back[i])}"
        + (f",V002,{12 if i < n // 2 else 30}" if distance else "")
        for i in range(n)
    ]
    path.write_text("\n".join(["sequence,sent_ms,received_ms" + (",peer_id,distance_m" if distance else ""), *rows]))


@pytest.mark.parametrize("distance", [True, False])
def test_round_trips_alone(tmp_path, capsys, distance):
    _round_trips(tmp_path / "rtt.csv", distance)
    out = tmp_path / "rtt.json"
    assert main(["calibrate", str(tmp_path / "rtt.csv"), "--out", str(out), "--confidence", "0.99"]) == 0
    params = read_params(out)
    assert params.loss.probability[0] == pytest.approx(0.1, abs=0.01), "not the .19 of two ways"
    assert params.latency.shape * params.latency.scale_ms + params.latency.shift_ms + 1.256 == pytest.approx(
        3.7, abs=0.3
    )
    assert params.latency.shape == pytest.approx(1.6, abs=0.35)
    assert "both ways" in params.provenance["latency"]
    assert "round-trip loss" in capsys.readouterr().out


def test_round_trips_tell_the_least_latency_that_one_way_logs_cannot(short_drive, tmp_path, capsys):
    folder = shutil.copytree(short_drive.folder, tmp_path / "logs")
    for board in ("V002", "V003"):
        (folder / f"{board}_rx.csv").unlink()
    _round_trips(folder / "rtt.csv")
    assert main(["calibrate", str(folder), "--out", str(tmp_path / "x.json")]) == 0
    assert "[assumed_latency]" not in capsys.readouterr().err
    assert "half of round trips" in read_params(tmp_path / "x.json").provenance["latency"]
