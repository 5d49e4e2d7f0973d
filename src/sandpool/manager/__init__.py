"""Managers: named pools, and sandboxes by id, in this process."""
