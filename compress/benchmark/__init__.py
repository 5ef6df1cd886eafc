"""How fast models run on a machine, and how sure that is: the harness, its processes, the runtimes."""
