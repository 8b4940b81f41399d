"""Radio parameters from the logs of boards."""
