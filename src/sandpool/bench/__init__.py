"""What a pool costs, measured so that a sceptic can do it again: `sandpool bench`.

Decisions and statistics are pure: `arrivals`, `quantiles`, `report`, `targets`, `page`.
One module for each family of benchmarks has the effects; `suite` lists them and `runner` runs each
in a process of its own, so that one that fails takes nothing of the others along.
"""
