"""Executions, comms, subshells and debugging, on the verbs of the core."""
