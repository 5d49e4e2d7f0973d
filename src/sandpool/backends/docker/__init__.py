"""Sandboxes from containers: any image, any runtime that the Docker Engine knows."""

from sandpool.backends.docker.backend import DockerBackend
from sandpool.backends.docker.reaper import reap

__all__ = ["DockerBackend", "reap"]
