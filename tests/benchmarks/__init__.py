"""The speed comparison: other stacks with the same API, measured over HTTP and in process."""
