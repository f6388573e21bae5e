"""The command line: one file a verb.

A verb reads options, calls one function of the rooms above and prints what came of it, for people or with ``--json``
as one object. Libraries are imported inside, so that ``--help`` is quick.
"""
