"""MLflow's REST protocol as data and pure functions: routes, shapes, records as JSON, statuses.

Nothing here opens a socket or a file; the server and the remote stores speak through it.
"""
