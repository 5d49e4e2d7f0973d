"""The program inside every sandbox; standard library only, Python 3.8 and up.

It is data to the backends, which put it into sandboxes under another package name.  Only
`frames`, the wire format, is imported by the host's side.
"""
