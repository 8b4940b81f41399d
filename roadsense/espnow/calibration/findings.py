"""What is wrong with logs and was worked around: named, so that tests and people can look for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know about a log."""

    code: str
    """Stable name of the kind, as in ``docs/calibration.md``."""
    where: str
    """File, board or link."""
    text: str
    """One sentence: what is there, and what was done about it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.text} [{self.code}]"


@dataclass
class Findings:
    """All findings of one calibration, in the order in which they were met."""

    found: list[Finding] = field(default_factory=list)
    folder: Path | None = None
    """Files are named from here on, so that the same logs elsewhere give the same findings."""

    def add(self, code: str, where: object, text: str) -> None:
        if isinstance(where, Path) and self.folder is not None and where.is_relative_to(self.folder):
            where = where.relative_to(self.folder).as_posix()
        self.found.append(Finding(code, str(where), text))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def codes(self) -> set[str]:
        return {one.code for one in self.found}
