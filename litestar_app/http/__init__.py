"""HTTP as every capability needs it: bodies, conditions, query parameters, problem documents, health, documentation."""
