"""Which worlds exist: generate, check and select datasets of scenarios."""
