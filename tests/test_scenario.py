"""Reading scenario directories: what the base scenarios promise, and bad input refused by name."""

from __future__ import annotations

import gzip
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from roadsense.convoy.source import open_source
from roadsense.episode_spec import EpisodeSpec
from roadsense.errors import ScenarioError
from roadsense.scenario import Scenario, read_scenario
from roadsense.traffic.geometry import speed_limit
from roadsense.traffic.route import RouteCatalogue, lane_path

BASE = Path(__file__).parents[1] / "scenarios" / "base"
ROADS = {"straight": 3000.0, "curve": 3500.0, "arterial": 4000.0}
"""Base roads and the least length of each [m]."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASE / "straight", tmp_path / "scene"))


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("road", ROADS)
def test_base_scenarios_state_an_exact_safe_convoy_with_the_ego_last(road: str) -> None:
    scenario = read_scenario(BASE / road)
    assert scenario.scenario_id == road
    assert scenario.exact
    assert not scenario.has_flows
    assert [vehicle.id for vehicle in scenario.vehicles] == ["V001", "V002", "V003", "V004", "V005"]
    speeds = {vehicle.depart_speed_mps for vehicle in scenario.vehicles}
    assert len(speeds) == 1
    (speed,) = speeds
    assert 8 <= speed <= 25
    for rear, front in zip(scenario.vehicles, scenario.vehicles[1:], strict=False):
        gap = front.depart_pos_m - front.type.length_m - rear.depart_pos_m
        wanted = rear.type.min_gap_m + speed * rear.type.tau_s
        assert wanted <= gap <= 1.5 * wanted
        assert gap >= 7
    for vehicle in scenario.vehicles:
        assert vehicle.stated
        assert vehicle.transmits
        assert vehicle.depart_s == 0
        assert vehicle.type.car_follow_model == "Krauss"
        assert vehicle.type.emergency_decel_mps2 >= 6
        assert vehicle.type.speed_factor == 1
    assert scenario.episode.hazard.kind == "emergency_brake"
    assert scenario.episode.hazard.release_share == 0.5
    assert scenario.episode.hazard.release_s == (2.0, 5.0)


@pytest.mark.parametrize("road", ROADS)
def test_base_roads_are_long_enough_and_their_limits_gentle_enough(road: str) -> None:
    scenario = read_scenario(BASE / road)
    catalogue = RouteCatalogue()
    net = catalogue.network(scenario.net_file, scenario.net_digest)
    route = catalogue.add(scenario.net_file, scenario.net_digest, lane_path(net, scenario.ego.edges, 0))
    table = catalogue.table([route])
    assert table.length_m[route] >= ROADS[road]
    ego, front = scenario.ego.depart_pos_m, scenario.vehicles[-1].depart_pos_m
    assert ego - 5.0 - 3.0 * 25.0 >= 0  # 30 virtual ticks back
    assert front + 43.0 * 25.0 <= table.length_m[route]
    assert all(v.depart_speed_mps <= speed_limit(table, route, v.depart_pos_m) for v in scenario.vehicles)
    if len(set(table.limit_mps)) > 1:
        assert all(vehicle.type.decel_mps2 <= 2.5 for vehicle in scenario.vehicles)


def test_a_config_file_may_be_named_itself_and_the_id_given(copy: Path) -> None:
    scenario = read_scenario(copy / "scenario.sumocfg", "other")
    assert scenario.scenario_id == "other"
    assert scenario.vehicles == read_scenario(BASE / "straight").vehicles
    assert scenario.net_digest == read_scenario(BASE / "straight").net_digest


def test_without_an_episode_file_the_defaults_hold(copy: Path) -> None:
    (copy / "episode.json").unlink()
    assert read_scenario(copy).episode == EpisodeSpec()


def _refused(path: Path, *words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        read_scenario(path)
    said = str(caught.value)
    for word in words:
        assert word in said
    assert said.startswith(str(path))  # where
    assert "\n" not in said and ".." not in said  # one sentence


def test_a_missing_ego_is_refused(copy: Path) -> None:
    _replace(copy / "vehicles.rou.xml", "V001", "V006")
    _refused(copy, "scenario.sumocfg", "V001")


@pytest.mark.parametrize("name", ["scenario.sumocfg", "vehicles.rou.xml"])
def test_xml_that_does_not_parse_is_refused(copy: Path, name: str) -> None:
    file = copy / name
    file.write_text(file.read_text()[:-10])
    _refused(copy, name, "not well-formed XML")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("network.net.xml", ("network.net.xml: no such file", "scenario.sumocfg names it as the network")),
        ("vehicles.rou.xml", ("vehicles.rou.xml: no such file; a scenario needs it.",)),
        ("scenario.sumocfg", ("holds no .sumocfg file; name one.",)),
    ],
)
def test_a_missing_file_is_refused(copy: Path, name: str, words: tuple[str, ...]) -> None:
    (copy / name).unlink()
    _refused(copy, *words)


def test_two_configurations_are_refused_unless_one_is_named(copy: Path) -> None:
    (copy / "scenario.sumocfg").rename(copy / "a.sumocfg")
    shutil.copy(copy / "a.sumocfg", copy / "b.sumocfg")
    _refused(copy, "holds 2 .sumocfg files; name one of them.")
    assert read_scenario(copy / "b.sumocfg").vehicles == read_scenario(BASE / "straight").vehicles


def test_two_networks_or_none_are_refused(copy: Path) -> None:
    line = '<net-file value="network.net.xml"/>'
    _replace(copy / "scenario.sumocfg", line, '<net-file value="network.net.xml,other.net.xml"/>')
    _refused(copy, "scenario.sumocfg: states 2 net-files; a scenario has exactly one.")
    _replace(copy / "scenario.sumocfg", '<net-file value="network.net.xml,other.net.xml"/>', "")
    _refused(copy, "scenario.sumocfg: states 0 net-files")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('minGap="2.5"', 'minGap="wide"', ("vType 'ego' has minGap='wide'; give a number that is not negative.",)),
        ('tau="1.0"', 'tau="nan"', ("vType 'ego' has tau='nan'; give a number above 0.",)),
        ('sigma="0"', 'sigma="1.5"', ("vType 'ego' has sigma='1.5'; give a number from 0 to 1.",)),
        ('speedFactor="1"', 'speedFactor="fast"', ("has speedFactor='fast'; give a number above 0.",)),
        ('tau="1.0"', 'tau="-1"', ("vType 'ego' has tau='-1'; give a number above 0.",)),
        ('decel="4.5"', 'decel="0"', ("vType 'ego' has decel='0'; give a number above 0.",)),
        ('departSpeed="20"', 'departSpeed="1e999"', ("vehicle 'V005' has departSpeed='1e999'; give a finite number.",)),
        ('depart="0"', 'depart="soon"', ("vehicle 'V005' has depart='soon'; give seconds.",)),
        ('depart="0"', 'depart="1:2:3:4:5"', ("vehicle 'V005' has depart='1:2:3:4:5'; give seconds.",)),
        ('depart="0"', 'depart="inf"', ("vehicle 'V005' has depart='inf'; give seconds.",)),
        ('departPos="200"', 'departPos="nan"', ("vehicle 'V001' has departPos='nan'; give a finite number.",)),
        ('departSpeed="20"', 'departSpeed="inf"', ("vehicle 'V005' has departSpeed='inf'; give a finite number.",)),
    ],
)
def test_what_is_no_number_is_refused(copy: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    file = copy / "vehicles.rou.xml"
    file.write_text(file.read_text().replace(old, new, 1))
    _refused(copy, "vehicles.rou.xml", *words)


def test_the_older_spelling_of_a_model_is_checked_too(copy: Path) -> None:
    nested = '<vType id="odd"><carFollowing-Krauss accel="abc"/></vType>'
    _replace(copy / "vehicles.rou.xml", "</routes>", f"{nested}</routes>")
    _refused(copy, "vehicles.rou.xml", "vType 'odd' has accel='abc'; give a number above 0.")


def test_what_is_no_file_of_xml_is_refused(copy: Path) -> None:
    (copy / "vehicles.rou.xml").write_text('<?xml version="1.0" encoding="nope"?><routes/>')
    _refused(copy, "vehicles.rou.xml", "cannot be read as XML")
    (copy / "vehicles.rou.xml").unlink()
    (copy / "vehicles.rou.xml").mkdir()
    _refused(copy, "vehicles.rou.xml", "cannot be read as XML")


def test_an_episode_file_that_is_nested_too_deep_is_refused(copy: Path) -> None:
    (copy / "episode.json").write_text("[" * 100_000)
    _refused(copy, "episode.json", "not valid JSON")


def test_a_begin_that_is_no_time_is_refused_and_clock_times_are_read(copy: Path) -> None:
    _replace(copy / "scenario.sumocfg", '<begin value="0"/>', '<begin value="1:00:30"/>')
    assert read_scenario(copy).begin_s == 3630.0
    _replace(copy / "scenario.sumocfg", '<begin value="1:00:30"/>', '<begin value="noon"/>')
    _refused(copy, "scenario.sumocfg: begin is 'noon'; give seconds.")


@pytest.mark.parametrize(("depart", "seconds"), [("0:00:00", 0.0), ("1:00:02.5", 3602.5), ("-1", -1.0)])
def test_departures_may_be_clock_times(copy: Path, depart: str, seconds: float) -> None:
    file = copy / "vehicles.rou.xml"
    file.write_text(file.read_text().replace('depart="0"', f'depart="{depart}"'))
    assert {vehicle.depart_s for vehicle in read_scenario(copy).vehicles} == {seconds}


def test_a_departure_in_words_is_the_engine_s_to_know(copy: Path) -> None:
    _replace(copy / "vehicles.rou.xml", 'id="V001" type="ego" depart="0"', 'id="V001" type="ego" depart="triggered"')
    assert not read_scenario(copy).exact


def test_what_is_not_followed_is_named(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_scenario(copy).left_out == ()
    _replace(copy / "scenario.sumocfg", '<step-length value="0.1"/>', '<end value="9"/><step-length value="1"/>')
    _replace(copy / "scenario.sumocfg", "</input>", '</input><fcd-output value="trace.xml"/>')
    _replace(copy / "vehicles.rou.xml", "</routes>", '<inductionLoop id="i"/><person id="p"/><person id="q"/></routes>')
    named = ("end", "fcd-output", "step-length", "<inductionLoop> in vehicles.rou.xml", "<person> in vehicles.rou.xml")
    assert read_scenario(copy).left_out == named
    source = open_source(scenario=str(copy))
    source.all()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == f"{copy / 'scenario.sumocfg'}: is played without what it states by {', '.join(named)}."


def test_packed_files_and_sumo_s_short_names_are_read(copy: Path) -> None:
    file = copy / "vehicles.rou.xml"
    (copy / "vehicles.rou.xml.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    config = (copy / "scenario.sumocfg").read_text().replace("vehicles.rou.xml", "vehicles.rou.xml.gz")
    (copy / "scenario.sumocfg").write_text(config.replace("net-file", "net").replace("route-files", "routes"))
    scenario = read_scenario(copy)
    assert scenario.vehicles == read_scenario(BASE / "straight").vehicles and scenario.left_out == ()
    (copy / "vehicles.rou.xml.gz").write_bytes(b"PK")
    _refused(copy, "vehicles.rou.xml.gz: cannot be read as XML")


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path / "gone", "gone", "no such scenario directory; give one, or a .sumocfg file.")


def test_a_vehicle_defined_twice_is_refused(copy: Path) -> None:
    _replace(copy / "vehicles.rou.xml", "V003", "V002")
    _refused(copy, "vehicles.rou.xml: vehicle 'V002' is defined twice; rename or remove one of them.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hazrd": {}}, ("hazrd",)),
        ({"hazard": {"onset": [5, 20]}}, ("hazard.onset",)),
        ({"hazard": {"onset_s": [20, 5]}}, ("hazard", "onset_s", "20", "5")),
        ({"hazard": {"rank": [4, 1]}}, ("hazard", "rank")),
        ({"hazard": {"decel_mps2": [3, 12]}}, ("hazard.decel_mps2",)),
        ({"hazard": {"kind": "meteor"}}, ("hazard.kind",)),
        ({"hazard": {"release_share": 0.5}}, ("hazard", "release_s")),
        ({"driver": {"reaction_s": [-1, 1]}}, ("driver.reaction_s",)),
        ({"schema_version": 2}, ("schema_version",)),
    ],
)
def test_a_bad_episode_file_is_refused(copy: Path, change: dict[str, object], words: tuple[str, ...]) -> None:
    (copy / "episode.json").write_text(json.dumps(change))
    _refused(copy, "episode.json", *words)


def test_an_episode_file_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / "episode.json").write_text("{")
    _refused(copy, "episode.json", "not valid JSON", "repair or remove it.")


def test_override_replaces_dotted_keys_and_refuses_unknown_ones() -> None:
    spec = EpisodeSpec().override({"hazard.rank": (1, 1), "hold_until_onset": True})
    assert spec.hazard.rank == (1, 1)
    assert spec.hold_until_onset
    assert spec.hazard.onset_s == EpisodeSpec().hazard.onset_s
    with pytest.raises(ScenarioError, match=r"no 'hazard\.rnk'; did you mean 'hazard\.rank'"):
        EpisodeSpec().override({"hazard.rnk": (1, 1)})
    with pytest.raises(ScenarioError, match="onset_s"):
        EpisodeSpec().override({"hazard.onset_s": (20.0, 5.0)})


def _with(copy: Path, old: str, new: str) -> Scenario:
    _replace(copy / "vehicles.rou.xml", old, new)
    return read_scenario(copy)


def test_departures_without_numbers_are_known_as_unstated(copy: Path) -> None:
    scenario = _with(copy, 'departPos="200"', 'departPos="random"')
    assert not scenario.ego.stated
    assert not scenario.exact
    assert all(peer.stated for peer in scenario.vehicles[1:])


def test_a_late_ego_is_not_exact(copy: Path) -> None:
    ego = 'id="V001" type="ego" depart='
    assert not _with(copy, f'{ego}"0"', f'{ego}"12.5"').exact


def test_a_type_can_switch_its_radio_off(copy: Path) -> None:
    silent = '<vType id="peer"><param key="roadsense.radio" value="false"/></vType><vType id="other"'
    scenario = _with(copy, '<vType id="peer"', silent)
    assert scenario.ego.transmits
    assert not any(peer.transmits for peer in scenario.vehicles[1:])


def test_flows_are_noticed(copy: Path) -> None:
    assert _with(copy, "</routes>", '<flow id="f" from="straight" to="straight" vehsPerHour="9"/></routes>').has_flows


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('<vehicle id="V002"', '<vehicle id="V002" speedFactor="0.5"'),
        ('<vehicle id="V002"', '<vehicle id="V002" arrivalPos="100"'),
        ('<vehicle id="V002"', '<vehicle id="V002" arrivalSpeed="3"'),
        ("<V002>", '<param key="has.driverstate.device" value="true"/>'),
        ("<V002>", '<stop lane="straight_0" endPos="400" duration="5"/>'),
        ("<in V002>", '<stop lane="straight_0" endPos="400" duration="5"/>'),
    ],
)
def test_a_vehicle_that_states_more_than_its_departure_is_left_to_sumo(copy: Path, old: str, new: str) -> None:
    file = copy / "vehicles.rou.xml"
    tree = ET.parse(file)
    car = next(one for one in tree.getroot().iter("vehicle") if one.get("id") == "V002")
    route = car.find("route")
    assert route is not None
    if old == "<V002>":
        car.append(ET.fromstring(new))
    elif old == "<in V002>":
        route.append(ET.fromstring(new))
    tree.write(file)
    if old.startswith("<vehicle"):
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
    stated = {vehicle.id: vehicle.stated for vehicle in read_scenario(copy).vehicles}
    assert stated == {name: name != "V002" for name in stated}


def test_a_route_with_a_stop_is_left_to_sumo_and_usual_words_are_not(copy: Path) -> None:
    file = copy / "vehicles.rou.xml"
    text = file.read_text()
    stop = '<stop lane="straight_0" endPos="400" duration="5"/>'
    text = text.replace("<routes>", f'<routes><route id="r" edges="straight">{stop}</route>', 1)
    text = text.replace('<vehicle id="V003"', '<vehicle id="V003" arrivalPos="max" arrivalSpeed="current"')
    tree = ET.ElementTree(ET.fromstring(text))
    car = next(one for one in tree.getroot().iter("vehicle") if one.get("id") == "V002")
    car.remove(car[0])
    car.set("route", "r")
    tree.write(file)
    stated = {vehicle.id: vehicle.stated for vehicle in read_scenario(copy).vehicles}
    assert stated == {name: name != "V002" for name in stated}


def test_what_acts_on_the_traffic_is_told(copy: Path) -> None:
    assert read_scenario(copy).acting == ()
    sign = '<variableSpeedSign id="s" lanes="straight_0"><step time="5" speed="3"/></variableSpeedSign>'
    (copy / "more.add.xml").write_text(f"<additional>{sign}</additional>")
    config = copy / "scenario.sumocfg"
    config.write_text(config.read_text().replace("</input>", '<additional-files value="more.add.xml"/></input>'))
    assert read_scenario(copy).acting == ("variableSpeedSign",)
