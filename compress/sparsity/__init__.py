"""Unstructured and N:M sparsity: which weights become zero, when, and how they stay zero."""
