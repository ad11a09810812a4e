"""What a user, or the disk, did wrong, in one sentence each. Edges (CLI, files, HTTP) map these; nothing inside catches
them.

TrimodeError
├── InvalidInput      a parameter, a prompt or a request
├── CheckpointError   a file of a checkpoint: missing, damaged, of another shape
└── StorageError      the machine's own: a full disk, a folder that cannot be written
"""


class TrimodeError(Exception):
    """Base of all errors meant for the user; its text is one sentence that says what, where and the allowed range."""


class InvalidInput(TrimodeError, ValueError):
    """A parameter or a prompt outside its range."""


class CheckpointError(TrimodeError, ValueError):
    """A checkpoint that cannot be read as what it claims to be."""


class StorageError(TrimodeError, OSError):
    """Something could not be written; what was there before still is."""
