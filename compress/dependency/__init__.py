"""What goes only together: a network is traced, its channels sorted into groups, and the groups are cut or masked."""
