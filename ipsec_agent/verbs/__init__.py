"""The verbs of the command line, one module each; its `main(arguments)` returns the exit code."""
