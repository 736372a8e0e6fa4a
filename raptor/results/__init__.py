"""Results: run folders, statistics, tables, figures, the HTML report."""
