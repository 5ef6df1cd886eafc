"""Methods on the features of a frozen network: the linear probe and class prototypes."""
