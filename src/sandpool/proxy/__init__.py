"""Ways from outside into the ports of a sandbox.

gate      what one lease has of addresses: tokens, connections, and their common end
door      embedded: a loopback port that leads to a port of a sandbox
address   served: what a URL says of sandbox, port and token
headers   served: what of a request and of an answer is passed on
exchange  served: HTTP over a connection into a sandbox
"""
