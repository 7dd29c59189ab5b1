"""The gate: is a change as fast and as good as what it replaces? Speed interleaved, quality paired.

``settings`` says what is asked; ``rank`` decides on seconds; ``worker`` runs one side in a process of its
own; ``speed`` interleaves the two; ``machine`` notices what disturbs; ``quality`` tests non-inferiority;
``gate`` puts them together; ``outputs`` writes what CI reads.
"""
