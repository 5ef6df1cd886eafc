"""From a request to a model directory: where a fit starts, which methods there are, and which one is best."""
