"""Work on rented machines: what it may cost, what stops it, and what is kept of it."""
