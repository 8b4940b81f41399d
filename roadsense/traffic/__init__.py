"""Who moves: the traffic interface, its engines, and the route geometry they share."""
