"""Sandboxes from Linux namespaces, forked from templates; as root or as an ordinary user."""

from sandpool.backends.native.backend import NativeBackend

__all__ = ["NativeBackend"]
