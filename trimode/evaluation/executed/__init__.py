"""The child of sandbox.py: isolates itself, runs a program under limits, and prints one verdict. docs/sandbox.md.

Three processes. The watcher (watcher.py) isolates itself, holds checks, token and deadline, out of all reach;
the first process of the new namespace, whose end is the end of all in it; the runner (program.py), which executes the
program. Imports nothing else of trimode, so that nothing else is loaded where the program runs.
"""
