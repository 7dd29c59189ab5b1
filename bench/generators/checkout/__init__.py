"""Generators whose code stays in its official repository: a checkout's path beside the weights' path."""
