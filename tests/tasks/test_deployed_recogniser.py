"""The deployed PP-OCR recogniser on real word crops: what our preprocessing and decoding make of it."""

from pathlib import Path

import pytest

from compress.measure.session import Session
from compress.tasks.recognition import RecognitionTask

DATA = Path(__file__).parents[3] / "shared" / "data"
MODEL = DATA / "models" / "en_number_mobile_v2.0_rec_infer.onnx"
CHARSET = DATA / "models" / "en_dict.txt"
LABELS = DATA / "rec" / "iiit5k_val" / "labels.txt"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MODEL.exists() and LABELS.exists()), reason="needs the PP-OCR recogniser and iiit5k_val"),
]


@pytest.mark.parametrize(("widths", "exact", "alnum"), [((), 419, 484), ((160, 320), 427, 490)])
def test_words_read_by_width(widths, exact, alnum):
    """Counts of 600, equal to those of a separate script: resize to height 32, pad to 320 (or 160), arg-max, collapse.

    How much is padded moves the count by 2 %: scores are comparable between equal widths only.
    """
    task = RecognitionTask([], [LABELS], charset=CHARSET, widths=widths)
    score = task.evaluate(Session(MODEL).run)
    assert (score.count, round(score.metric * 600), round(score.details["alnum"] * 600)) == (600, exact, alnum)
    assert task.warnings() == ()
