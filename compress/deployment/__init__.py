"""ONNX files that carry their preprocessing, how near they are to the model, what runs them, and the coded file."""
