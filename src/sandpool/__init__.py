"""Warm pools of isolated sandboxes."""
