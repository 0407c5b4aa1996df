"""A run on one page: ``collect`` reads its folder, ``figures`` draws, ``page`` says what stands where, ``html`` writes it."""

from sparseformers.train.report.html import Report, write_report

__all__ = ["Report", "write_report"]
