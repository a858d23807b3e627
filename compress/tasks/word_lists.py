"""The lists of a recogniser: read, compared with its charset, and what is said of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compress.data.charset import Charset
from compress.data.images import LoadedList
from compress.data.labels import ListRules, check_skipped
from compress.data.lmdb_folder import load_list
from compress.data.splices import is_spliced
from compress.data.streaming import stream_lists
from compress.data.unlabelled import load_unlabelled
from compress.tasks.crop_lists import CropLists
from compress.tasks.words import StreamedWords, Word, make_words, skipped_words, text_warnings


def load_word_lists(
    train: Sequence[Path],
    val: Sequence[Path],
    unlabelled: Sequence[Path],
    *,
    charset: Charset,
    max_height: int,
    lowercase: bool,
    agreement: bool,
    rules: ListRules,
) -> tuple[CropLists, list[Word] | StreamedWords]:
    """Read all lists, those of spliced crops last, and make what is trained on of those with labels.

    Args:
        train: label lists to train on.
        val: label lists to score on.
        unlabelled: folders or lists whose labels are not looked at.
        charset: the model's.
        max_height: training crops that are taller are shrunk to it.
        lowercase: the model knows texts in small letters.
        agreement: the labels are what a model read, which may well be nothing: that is no fault of the list.
        rules: what is asked of the lists.

    Raises:
        DataError: a list is unusable.
    """

    def load(path: Path, height: int | None) -> LoadedList:
        """A list with its texts as the model knows them."""
        loaded = load_list(Path(path), height, rules)
        if not lowercase:
            return loaded
        return replace(loaded, entries=tuple(replace(entry, text=entry.text.lower()) for entry in loaded.entries))

    streamed = stream_lists(train, max_height, rules)
    train_lists = [] if streamed else [load(path, max_height) for path in train]
    val_lists = [load(path, None) for path in val]
    words: list[Word] | StreamedWords = [word for part in train_lists for word in make_words(part, charset)]
    for lists, training in ((train_lists, True), (val_lists, False)):
        for part in lists:
            more = {} if agreement else skipped_words(part, charset, training)
            check_skipped(part.path, {**part.skipped, **more}, part.total, rules)
    if streamed:
        words = StreamedWords(streamed, charset, str.lower if lowercase else str)
        for listed in streamed:
            skipped = {**listed.skipped, "without text": words.empty[listed.path]}
            check_skipped(listed.path, skipped, listed.total, rules)
    loaded = [load_unlabelled(Path(path), max_height, rules) for path in unlabelled]
    return CropLists(train_lists, streamed, val_lists, sorted(loaded, key=lambda part: is_spliced(part.path))), words


def list_warnings(lists: CropLists, words: list[Word] | StreamedWords, charset: Charset) -> tuple[str, ...]:
    """One line for each kind of text or image of these lists that was skipped or is treated specially."""
    return (
        *(
            line
            for several, training in ((lists.train, True), (lists.val, False))
            for part in several
            for line in (*part.warnings, *text_warnings(part, charset, training))
        ),
        *(line for listed in lists.streamed for line in listed.warnings),
        *(words.warnings if isinstance(words, StreamedWords) else ()),
        *(line for part in lists.unlabelled for line in part.warnings),
    )
