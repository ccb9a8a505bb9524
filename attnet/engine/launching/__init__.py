"""Starting the ranks of a training. A new launcher is a file here and its line in `launch.LAUNCHERS`."""
