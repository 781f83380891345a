"""The students: what a client sees of them, the rules, the routes."""
