"""FSDP2 in place of DDP: the same losses and weights, the same files, and the same bits after a kill.

Processes are forked from this one and train together over gloo on the CPU, as in the other drills.
"""
