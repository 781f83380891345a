"""Students as files: import and export."""
