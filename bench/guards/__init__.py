"""What keeps a number from saying what it does not mean: judges that guided, metrics that do not measure.

``contamination`` tells a judge from its guide; ``canaries`` and ``doctor`` try metrics on images whose order
is known; ``goodhart`` sets a judge's view beside the guide's. All refuse or mark: none only warns.
"""
