"""Params files: what ships is what was measured, and what is wrong is named, all of it, in one sentence."""

import json
import math

import pytest
from pydantic import ValidationError

from roadsense._data import params_dir
from roadsense.errors import ParamsError, UsageError
from roadsense.espnow.params import RadioParams
from roadsense.espnow.profiles import read_params, shipped_names
from roadsense.espnow.sections import Placement


def _document(name="convoy"):
    return json.loads((params_dir() / "espnow" / f"{name}.json").read_text())


def _refusal(tmp_path, document):
    path = tmp_path / "mine.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(ParamsError) as caught:
        read_params(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path))


def test_shipped_sets():
    assert shipped_names() == ["5m", "convoy", "drive", "ideal", "stationary_60_200"]
    for name in shipped_names():
        params = read_params(name)
        assert params.name == name and params.provenance
        assert params.stale_after_ms == 500.0 and params.beacon.interval_ms == 100.0
    # as measured in the field
    assert read_params("5m").loss.probability == (0.08, 0.14, 0.291, 0.30)
    assert read_params("convoy").loss.probability == (0.058, 0.116, 0.124, 0.186)
    assert read_params("stationary_60_200").loss.mean_burst[0] == 13.9
    assert read_params("convoy").gps.sigma_m == 2.96 and read_params("5m").gps.sigma_m == 3.63
    assert dict(read_params("convoy").noise) == {"speed_mps": 0.43, "accel_mps2": 0.39, "heading_deg": 4.7}


@pytest.mark.parametrize(
    ("name", "round_trips"), [("drive", (0.21, 0.31, 0.57, 0.65)), ("stationary_60_200", (0.53, 0.97, 1.0))]
)
def test_round_trips_lose_as_measured(name, round_trips):
    """Both ways of one link, each lost by its own; with as many boards in doors as the profile has."""
    params = read_params(name)
    placement = params.placement or Placement()
    door = 1.0 - (1.0 - placement.door_probability) ** 2
    for share, expected in zip(params.loss.probability, round_trips, strict=True):
        one_way = (1.0 - door) * share + door * max(share, placement.door_loss)
        assert 1.0 - (1.0 - one_way) ** 2 == pytest.approx(expected, abs=2e-3)


def test_a_path_reads_like_a_name(tmp_path, monkeypatch):
    copy = tmp_path / "copy.json"
    copy.write_bytes((params_dir() / "espnow" / "drive.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert read_params(copy) == read_params(str(copy)) == read_params("copy.json") == read_params("drive")


def test_digest_is_of_the_values_not_of_the_bytes(tmp_path):
    path = tmp_path / "copy.json"
    document = _document()
    path.write_text(json.dumps(dict(reversed(document.items())), indent=7))
    assert read_params(path).digest == read_params("convoy").digest
    document["loss"]["probability"][0] += 1e-9
    path.write_text(json.dumps(document))
    assert read_params(path).digest != read_params("convoy").digest
    assert len({read_params(name).digest for name in shipped_names()}) == 5


def test_params_cannot_be_changed_in_place():
    params = read_params("convoy")
    with pytest.raises(ValidationError):
        params.stale_after_ms = 1.0


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("gps", "sigma_m", 33_000.0, "gps.sigma_m is 33000.0, input should be less than or equal to 50"),
        ("gps", "sigma_m", -1.0, "gps.sigma_m is -1.0, input should be greater than or equal to 0"),
        ("gps", "sigma_m", math.nan, "gps.sigma_m is nan, input should be a finite number"),
        ("gps", "tau_s", math.inf, "gps.tau_s is inf, input should be a finite number"),
        ("gps", "tau_s", 0.0, "gps.tau_s is 0.0, input should be greater than 0"),
        ("gps", "extrapolate", "yes", "gps.extrapolate is 'yes', input should be a valid boolean"),
        ("gps", "sgima_m", 3.0, "gps.sgima_m is unknown, did you mean 'sigma_m'"),
        ("noise", "accel_mps2", "0.4", "noise.accel_mps2 is '0.4', input should be a valid number"),
        ("latency", "tail_probability", 1.2, "latency.tail_probability is 1.2, input should be less than or"),
        ("latency", "tail_ms", [60.0, 10.0], "tail_ms ends at 10 below its start 60"),
        ("latency", "tail_ms", [60.0], "latency.tail_ms"),
        ("latency", "scale_ms", 80.0, "latency: may reach 3319 ms, at beacon.interval_ms 100 at most 700 ms"),
        ("loss", "probability", [0.1, 1.4, 0.1, 0.1], "loss.probability.1 is 1.4, input should be less than or equal"),
        ("loss", "probability", [0.1, 0.2], "loss: probability has 2 entries but from_m has 4"),
        ("loss", "mean_burst", [2.0] * 5, "loss: mean_burst has 5 entries but from_m has 4"),
        ("loss", "from_m", [0.0, 50.0, 20.0, 100.0], "loss: from_m must ascend, but 20 follows 50"),
        ("loss", "from_m", [5.0, 20.0, 50.0, 100.0], "loss: from_m begins at 5"),
        ("loss", "from_m", [], "loss.from_m"),
        ("loss", "range_m", 90.0, "loss: range_m must lie beyond from_m, but 90 follows 100"),
        ("loss", "probability", [0.6, 0.1, 0.1, 0.1], "1.25 is impossible at probability 0.6, state at least 2.5"),
        ("beacon", "interval_ms", 0.0, "beacon.interval_ms is 0.0"),
        ("randomisation", "loss_scale", [2.0, 1.0], "loss_scale ends at 1 below its start 2"),
        ("randomisation", "latency_scale", [1.0, 9.0], "latency: may reach 803 ms"),
    ],
)  # fmt: skip
def test_an_impossible_value_is_named(tmp_path, section, key, value, said):
    document = _document()
    document[section][key] = value
    assert said in _refusal(tmp_path, document)


def test_all_problems_at_once(tmp_path):
    document = _document()
    document["gps"]["sigma_m"] = 33_000
    document["losses"] = document.pop("loss")
    document["noise"].pop("speed_mps")
    document["schema_version"] = 2
    message = _refusal(tmp_path, document)
    for said in (
        "gps.sigma_m is 33000", "losses is unknown, did you mean 'loss'", "loss is missing, add it",
        "noise.speed_mps is missing, add it", "schema_version is 2, input should be 1",
    ):  # fmt: skip
        assert said in message
    assert message.endswith("Correct it.")


def test_all_problems_of_one_table_at_once(tmp_path):
    document = _document()
    document["loss"] |= {"from_m": [3.0, 2.0], "range_m": 1.0}
    message = _refusal(tmp_path, document)
    for said in ("probability has 4", "mean_burst has 4", "begins at 3", "2 follows 3", "1 follows 2"):
        assert said in message


@pytest.mark.parametrize("text", ["", "{", '{"name": "x",}', "\x00", "not json"])
def test_what_is_not_json_is_said_so(tmp_path, text):
    assert "is not JSON" in _refusal(tmp_path, text)


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_json_that_is_no_object(tmp_path, text):
    assert "the document" in _refusal(tmp_path, text)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "image.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ParamsError, match="is not JSON"):
        read_params(path)


def test_a_name_that_is_not_shipped_gets_the_nearest():
    with pytest.raises(UsageError, match=r"radio 'convoi' is unknown; did you mean 'convoy'\?"):
        read_params("convoi")


@pytest.mark.parametrize("where", ["nowhere.json", "."])
def test_a_file_that_cannot_be_read(tmp_path, where):
    with pytest.raises(ParamsError, match=r"cannot be read .*; give a params file or one of 5m, convoy"):
        read_params(tmp_path / where)


def test_schema_round_trip():
    for name in (*shipped_names(), "off", "delayed:150", "lossy:0.3,4.6"):
        params = read_params(name)
        assert RadioParams.model_validate_json(params.model_dump_json()) == params
