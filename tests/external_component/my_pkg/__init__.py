"""A package that is not part of bench: its components are named in suites by import path."""
