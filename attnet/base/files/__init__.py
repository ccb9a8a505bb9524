"""Files: paths, opening what anybody may have laid there, writing without loss, what a command leaves."""
