"""Radios made worse on purpose: what changes, what stays, and what is refused."""

import pytest

from roadsense.datasets.config import GenerateConfig
from roadsense.datasets.generate import generate
from roadsense.errors import ParamsError, UsageError
from roadsense.espnow.profiles import params_path, radio_names, read_params


def without(params, *names):
    document = params.model_dump()
    return {key: value for key, value in document.items() if key not in ("name", "provenance", *names)}


def test_a_delay_changes_when_messages_arrive_and_nothing_else():
    late, convoy = read_params("delayed:150"), read_params("convoy")
    assert late.latency.shift_ms == convoy.latency.shift_ms + 150.0
    assert late.latency.mean_ms == pytest.approx(convoy.latency.mean_ms + 150.0)
    assert without(late, "latency") == without(convoy, "latency")
    assert late.name == "delayed:150"
    assert "150 ms later" in late.provenance["degradation"]


def test_a_loss_holds_at_every_distance_and_nothing_else_changes():
    lossy, convoy = read_params("lossy:0.3,4.6"), read_params("convoy")
    assert (lossy.loss.from_m, lossy.loss.probability, lossy.loss.mean_burst) == ((0.0,), (0.3,), (4.6,))
    assert lossy.loss.range_m == convoy.loss.range_m
    assert lossy.placement is None  # or the share would be that of no link
    assert without(lossy, "loss", "placement") == without(convoy, "loss", "placement")


def test_spoofing_adds_false_alarms_and_nothing_else():
    spoofed, convoy = read_params("spoofed"), read_params("convoy")
    assert (spoofed.alarms.every_s, spoofed.alarms.lasts_s, spoofed.alarms.decel_mps2) == (10.0, 2.0, 8.0)
    assert convoy.alarms is None
    assert without(spoofed, "alarms") == without(convoy, "alarms")


def test_every_degradation_is_another_radio():
    names = ["off", "convoy", "ideal", "delayed:1", "delayed:2", "lossy:0.3,4.6", "lossy:0.3,5", "spoofed"]
    assert len({read_params(name).digest for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("delayed", "radio 'delayed': give it as delayed:<ms>, in numbers"),
        ("delayed:soon", "give it as delayed:<ms>"),
        ("delayed:1,2", "give it as delayed:<ms>"),
        ("delayed:-5", "in numbers that are not negative"),
        ("delayed:900", "radio 'delayed:900': latency"),  # more messages under way than there is room for
        ("delayed:nan", "radio 'delayed:nan': latency.shift_ms is "),
        ("lossy:0.3", "give it as lossy:<p>,<burst>"),
        ("lossy:1.3,2", "loss.probability.0 is 1.3"),
        ("lossy:0.9,2", "mean_burst 2 is impossible at probability 0.9, state at least 10"),
        ("off:1", "radio 'off:1': give it as off"),
        ("spoofed:2", "radio 'spoofed:2': give it as spoofed"),
        ("lossi:0.3,2", "radio 'lossi:0.3,2' is unknown; did you mean 'lossy"),
    ],
)
def test_what_cannot_be_is_one_sentence(name, said):
    with pytest.raises((ParamsError, UsageError)) as caught:
        read_params(name)
    assert (caught.type is UsageError) == ("give it as" in said or "unknown" in said or "negative" in said)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_names_are_listed_and_degradations_have_no_file(tmp_path):
    assert radio_names() == [
        "5m", "convoy", "drive", "ideal", "stationary_60_200", "off", "delayed:<ms>", "lossy:<p>,<burst>",
        "spoofed",
    ]  # fmt: skip
    assert params_path("lossy:0.3,4.6") is None
    assert params_path("convoy").is_file()
    with pytest.raises(UsageError, match="has no file; generate with a profile"):
        generate(GenerateConfig(emulator_params="lossy:0.3,4.6", datasets_dir=str(tmp_path)))
