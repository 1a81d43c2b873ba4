"""``fastencode-tune doctor``: what is installed here, what it can use, and what to mend."""

from __future__ import annotations

from fastencode.cli.settings import DoctorConfig
from fastencode.runs.doctor import examine, report

__all__ = ["run"]


def run(config: DoctorConfig) -> int:
    """Print one line for each check; returns 1 if something is wrong, else 0."""
    checks = examine(config.out)
    print(report(checks))
    return int(any(check.verdict == "wrong" for check in checks))
