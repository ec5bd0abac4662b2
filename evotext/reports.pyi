"""For editors and mypy alone: in a clone `evotext.reports` is the folder reports (evotext/folders.py)."""

from reports import comparison as comparison
from reports import figures as figures
from reports import formats as formats
from reports import head_to_head as head_to_head
from reports import html_report as html_report
from reports import latex as latex
from reports import live as live
from reports import markdown as markdown
from reports import picture as picture
from reports import statistics as statistics
from reports import tables as tables
from reports import verdicts as verdicts
