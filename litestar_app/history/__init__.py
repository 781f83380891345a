"""History: what writes have changed, what imports have done, and how to undo them."""
