"""The compared stacks, one file each, written as the documentation of each framework would have it."""
