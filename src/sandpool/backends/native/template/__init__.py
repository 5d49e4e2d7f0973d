"""The program of a template process; standard library only, Python 3.8 and up.

It is data to the host's side, which starts it by path (`boot.py`) under another package name.  A
template never runs a tenant's code and holds no secrets: it prepares a root file system once,
imports what its sandboxes shall share, and from then on forks.
"""
