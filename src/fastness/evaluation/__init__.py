"""Evidence: one check a file, measurements with protocol and interval, a report rendered from them.

A `Subject` is a bundle on a data set, or another model's predictions of it; its embeddings, neighbours and probe are
computed once. A `Check` asks it one question and gives `Findings`: measurements, and the outcome of each item.
`Evidence` is the folder where both lie with the hashes of everything; it is never changed. Reports, comparisons and
the gate read evidence alone, so they can be made again, elsewhere, without the data or the encoder.
"""
