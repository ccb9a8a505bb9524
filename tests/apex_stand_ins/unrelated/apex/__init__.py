"""In place of the web toolkit that PyPI calls apex; like that one, it cannot be imported alone."""

from pyramid_mailer.interfaces import IMailer  # noqa: F401
