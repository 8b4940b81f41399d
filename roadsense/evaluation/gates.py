"""Gates: what a policy must show before it may be used, as data (``params/gates/*.yaml``), evaluated in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from roadsense.comparison import McNemar, mcnemar, paired_bootstrap
from roadsense.errors import ParamsError, nearest
from roadsense.evaluation.evaluate import Evaluation
from roadsense.evaluation.journal import Row
from roadsense.evaluation.named import read_named, shipped
from roadsense.evaluation.suites import Bucket, Suite
from roadsense.evaluation.summary import summarise
from roadsense.runs import canonical_digest
from roadsense.statistics import CONFIDENCE, clopper_pearson

RUN = "run"
"""The policy that is judged."""

SIGNIFICANT = 0.05

Check = Literal["integrity", "coverage", "set_laws", "learning", "parity", "latency"]

_ALWAYS = {"group", "name"}
_BOUNDS = {"at_least", "at_most"}
_OF_EPISODES = {"suite", "policy", "radio", "where", "least_n"}
_STATES = {
    "check": {"check", *_BOUNDS},
    "coverage": {"check", "suite"},
    "figure": {"figure", "relative_to", "may_be_empty", *_BOUNDS, *_OF_EPISODES},
    "fewer_collisions_than": {"fewer_collisions_than", "or_no_more_by", "with_less", *_OF_EPISODES},
}
"""What a gate of each kind may state beside its group and name."""

_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Other(_Strict):
    """What a policy is compared with; what is left out is as in the gate."""

    policy: str | None = None
    radio: str | None = None

    @model_validator(mode="after")
    def _is_another(self) -> Other:
        if self.policy is None and self.radio is None:
            raise ValueError("fewer_collisions_than states neither policy nor radio; state one")
        return self


class Gate(_Strict):
    """One question; either a check, a figure within a bound, or a paired comparison of collisions."""

    group: str
    name: str
    check: Check | None = None
    suite: str | None = None
    policy: str = RUN
    radio: str | None = None
    """None: all radios of the suite."""
    where: dict[str, str | int | float] = {}
    """Buckets that count, by label of an axis; empty: all."""
    figure: str | None = None
    """Of a summary, by dotted keys."""
    relative_to: str | None = None
    """Policy whose figure it is divided by."""
    at_least: _Number | None = None
    at_most: _Number | None = None
    least_n: Annotated[int, Field(ge=1)] = 1
    """Fewest episodes that must have been played, and that the figure may rest on."""
    may_be_empty: bool = False
    """Passes where no episode shows the figure, as an impact speed without impacts."""
    fewer_collisions_than: Other | None = None
    or_no_more_by: _Number | None = None
    """Also passes where the collision rate is at most so much higher (upper bound) and ``with_less`` of a figure."""
    with_less: str | None = None

    @model_validator(mode="after")
    def _is_one_question(self) -> Gate:
        kinds = [self.check is not None, self.figure is not None, self.fewer_collisions_than is not None]
        if sum(kinds) != 1:
            raise ValueError(
                f"gate {self.name!r} states {sum(kinds)} of check, figure, fewer_collisions_than; state one"
            )
        kind = "check" if self.check else "figure" if self.figure else "fewer_collisions_than"
        kind = "coverage" if self.check == "coverage" else kind
        foreign = sorted(self.model_fields_set - _STATES[kind] - _ALWAYS)
        if foreign:
            raise ValueError(f"gate {self.name!r}: {foreign[0]} says nothing beside {kind}; leave it out")
        bounded = kind == "figure" or self.check not in (None, "coverage", "integrity")
        if bounded and (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"gate {self.name!r}: state at_least or at_most, one of them")
        if kind != "check" and self.suite is None:
            raise ValueError(f"gate {self.name!r}: state the suite")
        if (self.or_no_more_by is None) != (self.with_less is None):
            raise ValueError(f"gate {self.name!r}: or_no_more_by and with_less belong together")
        return self

    def verify(self, buckets: Sequence[Bucket]) -> None:
        """Refuses a radio, an axis or a label that no bucket has.

        Raises:
            ParamsError: names it.
        """
        radios = {bucket.radio for bucket in buckets}
        asked = [self.radio, self.fewer_collisions_than.radio if self.fewer_collisions_than is not None else None]
        known = {(axis, str(label)) for bucket in buckets for axis, label in bucket.labels.items()}
        for radio in asked:
            if radio is not None and radio not in radios:
                raise ParamsError(
                    f"gate {self.name!r}: suite {self.suite} has no radio {radio!r}; {nearest(radio, radios)}"
                )
        for axis, label in self.where.items():
            if (axis, str(label)) not in known:
                there = sorted(f"{name}: {one}" for name, one in known)
                raise ParamsError(
                    f"gate {self.name!r}: suite {self.suite} has no bucket with {axis}: {label};"
                    f" {nearest(f'{axis}: {label}', there)}"
                )

    @property
    def policies(self) -> list[str]:
        """All that must have played its suite."""
        other = self.fewer_collisions_than.policy if self.fewer_collisions_than is not None else None
        return [name for name in (self.policy, self.relative_to, other) if name is not None]

    @property
    def bound(self) -> str:
        """In words."""
        if self.fewer_collisions_than is not None:
            other = self.fewer_collisions_than
            whom = " ".join(part for part in (other.policy, f"under {other.radio}" if other.radio else None) if part)
            spare = f", or at most {self.or_no_more_by:g} more and less of {self.with_less}" if self.with_less else ""
            return f"fewer than {whom}{spare}"
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return f"at most {self.at_most:g}" if self.at_most is not None else "holds"


class GateSpec(_Strict):
    """What a file of gates states."""

    name: str
    version: Annotated[int, Field(ge=1)]
    about: str
    gates: Annotated[tuple[Gate, ...], Field(min_length=1)]
    shown: dict[str, tuple[str, ...]] = {}
    """Policies that play a suite too, for whoever looks at the run; no gate asks for them."""

    @model_validator(mode="after")
    def _suites_have_names_of_their_own(self) -> GateSpec:
        stems = [Path(suite).stem for suite in self.needs()]
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        if twice:
            raise ValueError(f"two suites are called {twice[0]!r}; rename one of the files")
        return self

    def verify(self, suites: Mapping[str, Suite]) -> None:
        """Refuses what no suite has.

        Args:
            suites: those it needs, by the name that gates give them.

        Raises:
            ParamsError: a gate asks for a radio, an axis, a label or a figure that does not exist.
        """
        figures = summarise("", [])
        for gate in self.gates:
            for figure in filter(None, (gate.figure, gate.with_less)):
                _picked(figures, figure, gate)
            if gate.suite is not None:
                gate.verify(suites[gate.suite].buckets)

    @property
    def digest(self) -> str:
        """Of all it states."""
        return canonical_digest(self.model_dump(mode="json"))

    def needs(self) -> dict[str, list[str]]:
        """The policies that must play each suite, the judged one first."""
        found: dict[str, dict[str, None]] = {}
        for gate in self.gates:
            if gate.suite is not None:
                found.setdefault(gate.suite, {RUN: None}).update(dict.fromkeys(gate.policies))
        for suite, names in self.shown.items():
            found.setdefault(suite, {RUN: None}).update(dict.fromkeys(names))
        return {suite: list(names) for suite, names in found.items()}


class Verdict(BaseModel):
    """How a gate was answered."""

    group: str
    name: str
    passed: bool
    figure: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    bound: str
    why: str = ""


def read_gates(name_or_path: str) -> GateSpec:
    """Reads gates by name, or any ``.yaml`` file by path.

    Raises:
        UsageError: no gates have that name.
        ParamsError: the file does not parse or states something impossible.
    """
    return read_named(name_or_path, "gates", "list of gates", GateSpec)


def shipped_gates(stated: Mapping[str, Any]) -> bool:
    """Whether gates that a verdict names are, to the letter, those that ship under their name."""
    name = stated.get("name")
    return name in shipped("gates") and read_gates(str(name)).digest == stated.get("digest")


class Judge:
    """Answers gates from evaluations.

    Args:
        evaluations: by suite; the judged policy's name in them is ``run_name``.
        run_name: of the judged policy.
        checks: verdicts of the gates that no evaluation answers, by check: (value, n, why it fails).
    """

    def __init__(
        self,
        evaluations: Mapping[str, Evaluation],
        run_name: str,
        checks: Mapping[str, tuple[float | None, int | None, str]],
    ) -> None:
        self._evaluations, self._run, self._checks = evaluations, run_name, checks

    def judge(self, gate: Gate) -> Verdict:
        """The verdict; whatever is missing fails."""
        if gate.check == "coverage":
            return self._coverage(gate)
        if gate.check is not None:
            value, n, why = self._checks.get(gate.check, (None, None, "was not checked"))
            why = why or _outside(gate, value)
            return Verdict(group=gate.group, name=gate.name, passed=not why, figure=gate.check, value=value, n=n,
                           bound=gate.bound, why=why)  # fmt: skip
        if gate.fewer_collisions_than is not None:
            return self._paired(gate, gate.fewer_collisions_than)
        return self._figure(gate)

    def _named(self, policy: str) -> str:
        return policy.replace(RUN, self._run, 1) if policy.partition(":")[0] == RUN else policy

    def _rows(self, gate: Gate, policy: str, radio: str | None) -> list[Row]:
        """Rows of the buckets that count, in order."""
        evaluation = self._evaluations[str(gate.suite)]
        own = [row for row in evaluation.rows if row.policy == self._named(policy)]
        wanted = [
            index
            for bucket in evaluation.buckets
            if radio in (None, bucket.radio)
            and all(str(bucket.labels.get(axis)) == str(label) for axis, label in gate.where.items())
            for index in bucket.episodes
        ]
        return [own[index] for index in wanted] if own else []

    def _found(self, gate: Gate, figure: str, policy: str, radio: str | None) -> dict[str, Any]:
        """The figure as {value, low, high, n}."""
        rows = self._rows(gate, policy, radio)
        node, leaf = _picked(summarise(policy, [row.metrics for row in rows]), figure, gate)
        beside = {"n": len(rows), **node}
        bounds = ("n",) if leaf == "count" else ("low", "high", "n")  # those that stand there are of the rate
        return {"value": node[leaf], "low": None, "high": None, **{key: beside.get(key) for key in bounds}}

    def _figure(self, gate: Gate) -> Verdict:
        rows, figure = self._rows(gate, gate.policy, gate.radio), str(gate.figure)
        found = self._found(gate, figure, gate.policy, gate.radio)
        value, counted = found["value"], found["n"] or 0
        if gate.relative_to is not None:
            unit = self._found(gate, figure, gate.relative_to, gate.radio)["value"]
            value = value / unit if value is not None and unit else None
            found = {**found, "low": None, "high": None}
        shows = len(rows) if gate.may_be_empty and not counted else counted
        why = _too_few(shows, gate) or ("" if gate.may_be_empty and not counted else _outside(gate, value))
        return Verdict(group=gate.group, name=gate.name, passed=not (why := why or _unsound(rows)), figure=figure,
                       value=value, low=found["low"], high=found["high"], n=found["n"], bound=gate.bound,
                       why=why)  # fmt: skip

    def _coverage(self, gate: Gate) -> Verdict:
        evaluation = self._evaluations[str(gate.suite)]
        buckets = evaluation.policies[self._run]["buckets"]
        short = [bucket for bucket in buckets if bucket["n"] < bucket["episodes"] or not bucket["episodes"]]
        why = "" if buckets else "the suite has no buckets"
        if short:
            first = f"bucket {short[0]['bucket']} has its hazard in {short[0]['n']} of {short[0]['episodes']} episodes"
            why = f"{first}; there are {len(short)} such buckets"
        return Verdict(
            group=gate.group, name=gate.name, passed=not why, figure="coverage",
            value=float(min((bucket["n"] for bucket in buckets), default=0)), n=len(buckets), bound="all of each",
            why=why,
        )  # fmt: skip

    def _paired(self, gate: Gate, than: Other) -> Verdict:
        """Collisions of the same episodes, counted where exactly one of the two has one (exact McNemar)."""
        policies, radios = (gate.policy, than.policy or gate.policy), (gate.radio, than.radio or gate.radio)
        rows = [self._rows(gate, policy, radio) for policy, radio in zip(policies, radios, strict=True)]
        own, others = ([row.metrics for row in one] for one in rows)
        valid = [(one, other) for one, other in zip(own, others, strict=False) if one.valid and other.valid]
        if not valid or len(own) != len(others):
            return Verdict(group=gate.group, name=gate.name, passed=False, figure="collisions", n=len(valid),
                           bound=gate.bound, why="there are no pairs to compare")  # fmt: skip
        mine, theirs = [one.crashed for one, _ in valid], [other.crashed for _, other in valid]
        test = mcnemar(mine, theirs)
        low, high = paired_bounds(test, mine, theirs, [one.scenario_id for one, _ in valid])
        difference = (sum(mine) - sum(theirs)) / len(valid)
        said = f"{sum(mine)} against {sum(theirs)} of {len(valid)}, only one of them {test.b} against {test.c}"
        why = "" if difference < 0.0 and test.p < SIGNIFICANT else f"{said}, p = {test.p:.3g}"
        if why and gate.or_no_more_by is not None:
            less = str(gate.with_less)
            ours, rule = (
                self._found(gate, less, policy, radio)["value"] for policy, radio in zip(policies, radios, strict=True)
            )
            if high <= gate.or_no_more_by and ours is not None and rule is not None and ours < rule:
                why = ""
            else:
                why += f"; {less} {_shown(ours)} against {_shown(rule)}"
        why = _too_few(len(valid), gate) or why or _unsound([*rows[0], *rows[1]])
        return Verdict(group=gate.group, name=gate.name, passed=not why, figure=f"collision rate, difference ({said})",
                       value=difference, low=low, high=high, n=len(valid), bound=gate.bound, why=why)  # fmt: skip


def _too_few(count: int, gate: Gate) -> str:
    return f"rests on {count} episodes, at least {gate.least_n} are needed" if count < gate.least_n else ""


def _unsound(rows: Sequence[Row]) -> str:
    """Why no figure of these episodes can be believed: some were broken off, and lack their rest, or are invalid."""
    failed = [row for row in rows if row.metrics.failure]
    invalid = [row for row in rows if not row.metrics.valid]
    if failed:
        first = failed[0]
        return (
            f"{len(failed)} episodes were broken off; {first.policy}, episode {first.episode}: {first.metrics.failure}"
        )
    if invalid:
        return f"{len(invalid)} episodes are invalid; {invalid[0].policy}, episode {invalid[0].episode}: peers touched"
    return ""


def _picked(summary: dict[str, Any], figure: str, gate: Gate) -> tuple[dict[str, Any], str]:
    """What holds a figure in a summary, and under which key.

    Raises:
        ParamsError: there is no such figure.
    """
    node: Any = summary
    *parents, leaf = figure.split(".")
    for name in parents:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or leaf not in node:
        raise ParamsError(f"gate {gate.name!r}: there is no figure {figure!r}; see the keys of a summary.")
    return node, leaf


def paired_bounds(
    test: McNemar, mine: Sequence[bool], theirs: Sequence[bool], scenarios: Sequence[str]
) -> tuple[float, float]:
    """Of the difference of two collision rates: the wider of a bootstrap by scenario and of exact bounds of the pairs.

    The bootstrap knows that episodes of one scenario are alike, and has no width where nothing ever happens; the exact
    bounds (each of the two kinds of pairs at half the error) are the other way round.
    """
    drawn = paired_bootstrap(mine, theirs, scenarios)
    each = 0.5 * (1.0 + CONFIDENCE)
    only_mine, only_theirs = (clopper_pearson(count, test.n, each) for count in (test.b, test.c))
    low, high = only_mine[0] - only_theirs[1], only_mine[1] - only_theirs[0]
    return float(np.fmin(low, drawn.low)), float(np.fmax(high, drawn.high))


def _outside(gate: Gate, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "there is no such figure"
    if gate.at_least is not None and value < gate.at_least:
        return f"{_shown(value)} is below {gate.at_least:g}"
    if gate.at_most is not None and value > gate.at_most:
        return f"{_shown(value)} is above {gate.at_most:g}"
    return ""


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as text, one a line."""
    rows = [("", "gate", "value", "n", "bound")]
    for one in verdicts:
        bracket = f" [{_shown(one.low)}, {_shown(one.high)}]" if one.low is not None and one.high is not None else ""
        rows.append((
            "ok" if one.passed else "FAILED", f"{one.group}: {one.name}", _shown(one.value) + bracket,
            "–" if one.n is None else str(one.n), one.bound,
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    failed = [one for one in verdicts if not one.passed]
    lines += [f"failed: {one.group}: {one.name}: {one.why}" for one in failed]
    lines.append(f"{len(verdicts) - len(failed)} of {len(verdicts)} gates passed: "
                 f"{'accepted' if not failed else 'rejected'}")  # fmt: skip
    return "\n".join(lines)
