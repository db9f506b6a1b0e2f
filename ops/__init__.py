"""Operators' tools: simulators, benchmarks, chaos."""
