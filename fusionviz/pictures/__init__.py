"""Pictures: opened from anywhere, turned upright, bounded, and fitted to a network's input.

    picture = open_picture("sample:coffee")            or a path, bytes, a PIL image, an array
    seen = fit(picture, backbone.preprocessing)        the tensor, and the very pixels that it was made of

Whatever cannot be a picture is answered with a PictureError, a sentence that says what is accepted.
"""

from fusionviz.pictures.catalogue import FOLDER_VARIABLE, Sample, folder, keys, known, samples, title
from fusionviz.pictures.fitting import Fitted, fit, thumbnail
from fusionviz.pictures.opening import open_picture, open_scene
from fusionviz.pictures.record import MAX_BYTES, MAX_PIXELS, MAX_SIDE_PX, MIN_SIDE_PX, Picture

__all__ = (
    "FOLDER_VARIABLE",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MAX_SIDE_PX",
    "MIN_SIDE_PX",
    "Fitted",
    "Picture",
    "Sample",
    "fit",
    "folder",
    "keys",
    "known",
    "open_picture",
    "open_scene",
    "samples",
    "thumbnail",
    "title",
)
