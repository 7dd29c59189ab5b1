"""How far a score can be trusted: intervals, paired comparisons and the power to tell variants apart.

``design`` says which samples belong together; ``means`` gives intervals of metrics that are means over
samples; ``leave_out`` of all others; ``frechet`` makes the latter affordable for Fréchet distances;
``intervals`` chooses among them; ``paired`` compares two variants; ``power`` says what a comparison could
find. See docs/uncertainty.md for what was measured.
"""
