"""Weight sharing: few different values a layer (Han et al. 2016, Deep Compression, arXiv 1510.00149, sec. 3)."""
