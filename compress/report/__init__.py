"""The report of a run: derived from lineage records and benchmark results, nothing stored twice."""
