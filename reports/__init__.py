"""From run folders to a comparison: reading, statistics, curves, figures and the report.

Imports no torch: a report starts fast.
"""
