"""How a policy learns: SB3, RLlib, workers and checkpoints."""
