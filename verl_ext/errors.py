# SPDX-License-Identifier: Apache-2.0
"""The errors that a user can act on."""


class DataError(ValueError):
    """A data set row, file or option is not usable; the message names it."""


class ConfigurationError(ValueError):
    """A configuration value is not usable; the message reads ``key=value: remedy``."""

    def __init__(self, *, key: str, value: object, remedy: str) -> None:
        self.key = key
        self.value = value
        self.remedy = remedy
        super().__init__(f"{key}={value}: {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling, which keyword-only arguments otherwise break; workers raise across processes."""
        return _rebuild_configuration_error, (self.key, self.value, self.remedy)


def _rebuild_configuration_error(key: str, value: object, remedy: str) -> ConfigurationError:
    return ConfigurationError(key=key, value=value, remedy=remedy)
