"""How each ONNX operator of the canonical form becomes PyTorch: the table, and its handlers by what they do.

A handler gets the importer, the node and its attributes, and returns the fx node(s) for the node's outputs.
"""
