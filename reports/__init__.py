"""Reports on run folders: statistics, curves, figures and pages.

Imports no torch: a report starts fast.
"""
