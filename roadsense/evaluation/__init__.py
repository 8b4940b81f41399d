"""How good a policy is: suites, metrics, statistics, gates and the report."""
