"""The HTTP interface of ms-enclave's server, for its clients and those written after them."""

from sandpool.dialects.enclave.routes import create_router

__all__ = ["create_router"]
