"""Check everything that watches the exporter's metrics: python -m lint [ROOT]."""

from __future__ import annotations

import sys
from pathlib import Path

from lint.metric_names import ROOT, listed_metrics
from lint.reference_tools import check_with_tools
from lint.rules import check_rules, read_rules


def main(root: Path) -> int:
    """Print each problem in the repository at `root`; return 1 if there is one."""
    problems = [*check_with_tools(root), *check_rules(root, listed_metrics(root))]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        alerts = sum(bool(rule.alert) for rule in read_rules(root))
        print(f"{alerts} alerts: rules, tests, runbooks and settings are valid")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else ROOT))
