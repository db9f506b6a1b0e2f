"""The mastering chain: decode, analyse, plan, render, encode, verify."""
