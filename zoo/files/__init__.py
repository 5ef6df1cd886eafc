"""The files that carry models: directories, ONNX and coded files, weights from elsewhere, and what reads them."""
