"""Other systems' wire interfaces, each a router over `SandboxService` that the server mounts.

A dialect decodes, calls the service and encodes.  It knows nothing of the server: what it needs of
it comes as arguments of its `create_router`.
"""
