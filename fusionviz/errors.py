"""Mistakes a user can make, each with a sentence that says what was expected, what came, what to do.

The sentences live in `assets/locale` under `errors.<code>`, in every language; the English one is
the exception's own message. Programming errors stay ordinary Python exceptions.
"""

from fusionviz import texts


class FusionvizError(Exception):
    """A user's mistake; `code` names its text, `values` fill it."""

    def __init__(self, code: str, /, **values: object) -> None:
        self.code, self.values = code, values
        super().__init__(self.text("en"))

    def __reduce__(self) -> tuple:
        # Python's own way to copy an exception would take its sentence for its code.
        return _again, (type(self), self.code, self.values)

    def text(self, language: str = "en") -> str:
        """Return the sentence in `language`."""
        return texts.text(f"errors.{self.code}", language, **self.values)


def _again(kind: type[FusionvizError], code: str, values: dict[str, object]) -> FusionvizError:
    return kind(code, **values)


class PictureError(FusionvizError):
    """A picture that cannot be opened or used."""


class UnknownNameError(FusionvizError):
    """A name that is not in its catalogue; the message has near matches and the list."""


class ParameterError(FusionvizError):
    """A knob's value out of its bounds or choices."""


class LevelError(FusionvizError):
    """A level the backbone does not have, or a pair in the wrong order."""


class ShapeError(FusionvizError):
    """Maps that do not fit together; the message gives the shapes and the fix."""


class WeightsError(FusionvizError):
    """Weights that cannot be found, downloaded, verified or loaded."""


class DeviceError(FusionvizError):
    """A device this machine does not have."""


class ExportError(FusionvizError):
    """A figure that cannot be written."""
