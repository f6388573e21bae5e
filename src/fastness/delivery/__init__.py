"""What leaves the house: an encoder as one graph that gives the same vectors everywhere, small and fast.

An `Intake` says what the graph of a modality takes, as people have it; `graph_of` puts preprocessing, network, pooling
and normalisation into one ONNX graph; a `Form` writes that graph for a runtime, whole or quantised; `export` measures
what was written against the encoder on real items, through the very code that runs it elsewhere (``fastness_runtime``),
and refuses what differs too much. An export lies in the bundle's folder ``exports`` and does not change its id.
"""
