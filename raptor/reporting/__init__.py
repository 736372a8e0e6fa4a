"""Reporting: statistics, tables, figures and pages."""
