"""The coded file: a whole model, entropy-coded, and what is needed to read it. Integers only, so bits never differ."""
