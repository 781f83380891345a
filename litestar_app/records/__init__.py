"""Records: a table and its structs, declared once, and what is derived from that for every kind of record."""
