"""Egress: networks of sandboxes that reach what is listed, and nothing else.

    sandbox --veth--> gate (a network namespace, nftables, a resolver) --uplink--> host's network

The gate of a policy is a namespace of its own in a helper process of ours, `gateway`; its rules are
where no tenant has a capability, and the kernel drops namespace, rules and cables with the process.
`rules` and `names` decide, and do nothing else.  Nothing here runs unless a sandbox asks for it.
"""
