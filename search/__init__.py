"""The search: proposes networks, trains them, and learns from what the boards report.

In the order in which data passes: space (and spaces/) -> architecture -> constraints -> data,
network, train -> quantize -> candidate (these steps in one process: workers) -> measuring ->
trial_log -> reward -> trial -> strategy (and strategies/). study holds the settings, loop runs it
all, finish makes the end of it. README.md says how to add a space, a strategy or a data set.
"""
