"""What a job may cost: refused before it begins where the worst case is too dear, and counted while it runs."""

from __future__ import annotations

import pytest

from roadsense.cli import main
from roadsense.cloud.budget import Budget, Meter
from roadsense.cloud.submit import SubmitConfig, entrypoint
from roadsense.errors import UsageError


def test_the_worst_case_is_all_hours_with_all_workers() -> None:
    budget = Budget(max_hours=10, max_usd=18, usd_per_hour=0.2, worker_usd_per_hour=0.4, max_workers=4)
    assert budget.worst_usd_per_hour == pytest.approx(1.8)
    assert budget.worst_usd == pytest.approx(18)
    assert budget.worst_case() == "10 h × (0.2 + 4 × 0.4) USD/h = 18.00 USD"
    assert Budget(max_hours=2, usd_per_hour=0.5).worst_case() == "2 h × (0.5) USD/h = 1.00 USD"


def test_a_worst_case_above_the_cap_is_refused_with_the_sum() -> None:
    told = r"the worst case is 10 h × \(0.2 \+ 4 × 0.4\) USD/h = 18.00 USD, above --max-usd 17.99; give fewer hours"
    with pytest.raises(UsageError, match=told):
        Budget(max_hours=10, max_usd=17.99, usd_per_hour=0.2, worker_usd_per_hour=0.4, max_workers=4)
    Budget(max_hours=3, max_usd=0.3, usd_per_hour=0.1)  # which is above it by the last bit of a double


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"max_hours": 0}, "--max-hours is 0; give a number above 0"),
        ({"max_hours": float("nan")}, "--max-hours is nan"),
        ({"max_hours": float("inf")}, "--max-hours is inf"),
        ({"max_hours": 1, "max_usd": -1, "usd_per_hour": 1}, "--max-usd is -1; give a number above 0"),
        ({"max_hours": 1, "max_usd": 1}, "--max-usd needs the price of the machine; give --usd-per-hour too"),
        ({"max_hours": 1, "max_workers": -1}, "--max-workers is -1; give a number from 0 on"),
        ({"max_hours": 1, "worker_usd_per_hour": float("nan")}, "--worker-usd-per-hour is nan"),
        (
            {"max_hours": 10, "max_usd": 3, "usd_per_hour": 0.12, "max_workers": 4},
            "--max-workers 4 would count as free; give the highest price of one by --worker-usd-per-hour",
        ),
        ({"max_workers": 4, "worker_usd_per_hour": 0}, "--max-workers 4 would count as free"),
        ({"worker_usd_per_hour": 0.25}, "--worker-usd-per-hour 0.25 is the price of no worker; give --max-workers"),
        ({"worker_usd_per_hour": 0.25, "max_workers": 0}, "--worker-usd-per-hour 0.25 is the price of no worker"),
        ({"max_hours": 0.05}, "--max-hours 0.05 leaves nothing once 300 s are kept back for the upload; give more"),
    ],
)
def test_what_is_no_cap_is_refused(stated: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Budget(**stated)


class Clock:
    """Seconds that are set by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_hours_stop_it_so_that_what_is_kept_back_still_fits() -> None:
    clock = Clock()
    meter = Meter(Budget(max_hours=2, reserve_s=600), clock=clock)
    assert meter.reached() is None and meter.hours == 0
    clock.now_s += 2 * 3600 - 601
    assert meter.reached() is None
    clock.now_s += 1
    assert meter.reached() == "the cap of 2 hours is reached"


def test_hours_of_earlier_attempts_count() -> None:
    clock = Clock()
    meter = Meter(Budget(max_hours=2, reserve_s=0), used_hours=1.5, clock=clock)
    clock.now_s += 1799
    assert meter.reached() is None
    clock.now_s += 1
    assert meter.reached() == "the cap of 2 hours is reached" and meter.hours == 2


def test_money_stops_it_where_it_runs_out_first() -> None:
    clock = Clock()
    budget = Budget(max_hours=4, max_usd=4, usd_per_hour=1, reserve_s=0)
    object.__setattr__(budget, "max_usd", 1.0)  # the constructor refuses what could come to it
    meter = Meter(budget, clock=clock)
    clock.now_s += 3599
    assert meter.reached() is None
    clock.now_s += 1
    assert meter.reached() == "the cap of 1 USD is reached"


def test_a_cap_on_money_over_a_cluster_needs_to_know_of_its_workers(capsys: pytest.CaptureFixture[str]) -> None:
    caps = {"max_hours": 2.0, "max_usd": 3.0, "usd_per_hour": 0.12}
    Budget(**caps)  # of one machine
    for stated in ({}, {"max_workers": 0}, {"worker_usd_per_hour": 0.0}):
        with pytest.raises(UsageError, match="give --max-workers and --worker-usd-per-hour, both 0 where it has none"):
            SubmitConfig(**caps, **stated)
    SubmitConfig(max_hours=2.0)
    assert SubmitConfig(**caps, max_workers=4, worker_usd_per_hour=0.25).worst_usd == pytest.approx(2.24)
    alone = SubmitConfig(**caps, max_workers=0, worker_usd_per_hour=0.0)
    assert alone.worst_case() == "2 h × (0.12) USD/h = 0.24 USD"
    assert "--max-workers 0" in entrypoint(["pipeline"], alone)
    assert main(["job", "submit", "--max-usd", "3", "--usd-per-hour", "0.12", "pipeline"]) == 2
    assert capsys.readouterr().err.startswith("roadsense: --max-usd holds for the workers of the cluster too;")


def test_the_command_line_refuses_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    caps = ["--max-hours", "8", "--max-usd", "3", "--usd-per-hour", "0.5"]
    for verb in ("run", "submit"):
        assert main(["job", verb, *caps, "--", "pipeline", "--seed", "7"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(
            "roadsense: the worst case is 8 h × (0.5) USD/h = 4.00 USD, above --max-usd 3;"
        )
