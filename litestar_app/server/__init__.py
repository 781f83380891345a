"""Serving: uvicorn with limits to what a client may send, and a supervisor of several workers."""
