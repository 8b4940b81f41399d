"""Who decides: the learned policy, the baselines and the runtime that needs no torch."""
