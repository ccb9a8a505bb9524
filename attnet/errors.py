"""Errors that a user can mend: each message names the parameter or file, its value, the rule and the way out."""


class AttnetError(ValueError):
    """Base of every error that `attnet` raises on purpose; the command line prints it without a traceback."""


class ConfigError(AttnetError):
    """A parameter is unknown, of the wrong type, out of range, or at odds with another one."""


class DataError(AttnetError):
    """A data set is missing, damaged, unsafe to read, or not what its name says."""


class WeightsError(AttnetError):
    """A weights file cannot be read, or does not belong to the network it is loaded into."""


class SaveError(AttnetError, OSError):
    """A checkpoint could not be written; the ones before it are whole."""
