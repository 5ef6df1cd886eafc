"""From a source of labelled images to pixels at a network's size: readers, splits, the data doctor, the cache."""
