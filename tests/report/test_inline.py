import base64
import io

import numpy as np
import pytest
from PIL import Image

from gmmcli.report.inline import png


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_comes_back_out_of_its_address(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    head, _, content = png(pixels).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.format == "PNG"
        assert np.array_equal(np.asarray(picture).reshape(pixels.shape), pixels)
