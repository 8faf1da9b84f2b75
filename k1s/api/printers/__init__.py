"""Printer columns and cells of the built-in kinds, an area per file; api/table.py is the way in."""
