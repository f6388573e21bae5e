"""What comes after release: is what is served still what it was made for, and what is done if it is not?

A version carries a `Sketch` of how its items looked. The service writes a journal (`kept`): windows of vectors, facts
and counts, never the items. A `Monitor` judges each window once, signal by signal (`signals`), explains what drifted
(`explain`), and writes window, incident and due actions in one transaction (`decide`); `actions` does what is due, and
may be killed anywhere. `drift` are tests of two sets of items under shared permutations; `online` a detector for items
as they come; `trial` compares a candidate with production while both serve; `drill` rehearses all of it on a copy. All
of it takes a `Window` of embeddings, whoever's they are.
"""
