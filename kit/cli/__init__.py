"""The command line, one file a command; what all of them take is in `options`, what they say and write in `output`."""
