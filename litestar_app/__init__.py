"""Student records: a REST service for the students of a small department."""
