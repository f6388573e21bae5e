"""What counts: pure functions of arrays.

They take arrays or tensors and know of neither bundles nor data sets. Numbers that are none are refused with their
row. Ties count against whoever is measured. Each is tested against an independent implementation, degenerate inputs
included.
"""
