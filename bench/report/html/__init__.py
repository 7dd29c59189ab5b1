"""The report as one self-contained HTML page: Jinja2 templates, plotly's own bundle, no network."""
