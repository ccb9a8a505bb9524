"""Results of every kind in one table of the document's form, the published ones beside, never instead."""

from attnet.report.records import others_table, read_records, records
from attnet.report.rows import Row, in_order, published_rows
from attnet.report.runs import finished_runs, scaling
from attnet.report.selection import Report, collect
from attnet.report.tables import csv_table, markdown, readme_table, result_table, write_report

__all__ = [
    "Report",
    "Row",
    "collect",
    "csv_table",
    "finished_runs",
    "in_order",
    "markdown",
    "others_table",
    "published_rows",
    "read_records",
    "readme_table",
    "records",
    "result_table",
    "scaling",
    "write_report",
]
