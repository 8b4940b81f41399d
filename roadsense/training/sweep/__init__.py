"""The same training over seeds and a grid of configurations, on the CPUs that there are, ending in one table."""
