"""ONNX graphs, read and changed: nodes, layers, preprocessing, free batches, and files from elsewhere."""
