"""A tokenizer of one's own: trained on the text that the decoder will be trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ragindex.encoder.checkpoint import TOKENIZER_FILE
from ragindex.errors import TrainingError, UsageError

__all__ = ["Algorithm", "Roles", "VocabularyOptions", "find_roles", "read_tokenizer", "train_tokenizer"]

Algorithm = Literal["bpe", "wordpiece", "unigram"]

_PAD, _BEGIN, _END, _MASK, _UNKNOWN = "<pad>", "<s>", "</s>", "<mask>", "<unk>"
_SPECIAL = (_PAD, _BEGIN, _END, _MASK)
_LONGEST_WORD = 100  # characters, of WordPiece; longer ones are unknown
# What well-known tokenizers call these tokens. None of them says so in its tokenizer.json.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|endoftext|>"),
    "begin": ("<s>", "<bos>", "[CLS]", "<|begin_of_text|>", "<|endoftext|>"),
    "end": ("</s>", "<eos>", "[SEP]", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>"),
}


@dataclass(frozen=True, slots=True)
class VocabularyOptions:
    """What kind of tokenizer.

    size: tokens, special ones included; a small text gives fewer. algorithm: "bpe" over bytes (Radford et al., 2019:
    nothing is unknown), "wordpiece" or "unigram" (Kudo, arXiv 1804.10959). lowercase: read all letters as small ones.

    White space of any kind ends a word and is not kept, so a word has the same tokens wherever it stands. That is how
    an encoder wants it; a decoder that shall write program text does not.
    """

    size: int = 16_000
    algorithm: Algorithm = "bpe"
    lowercase: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in get_args(Algorithm):
            raise UsageError(f"A tokenizer is one of {', '.join(get_args(Algorithm))}; got {self.algorithm!r}.")
        if self.size < 300:
            raise UsageError(f"A vocabulary of {self.size} does not even hold all bytes; give at least 300.")


@dataclass(frozen=True, slots=True)
class Roles:
    """Token ids of padding and of the ends of a text; None where the tokenizer has no such token."""

    pad: int | None
    begin: int | None
    end: int | None


def train_tokenizer(texts: Iterable[str], options: VocabularyOptions | None = None) -> Tokenizer:
    """A tokenizer trained on `texts`; it puts <s> before and </s> after a text, and knows <mask> and <pad> (id 0).

    WordPiece and unigram training break ties by chance, so the result is to be kept, not made again. Raises
    TrainingError when there is nothing to learn from.
    """
    options = options or VocabularyOptions()
    tokenizer, trainer = _untrained(options)
    tokenizer.train_from_iterator(texts, trainer)
    special = {*_SPECIAL, _UNKNOWN}
    if not any(token not in special for token in tokenizer.get_vocab()):
        raise TrainingError("There is no text to make a vocabulary from.")
    ends = [(name, tokenizer.token_to_id(name)) for name in (_BEGIN, _END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{_BEGIN} $A {_END}", special_tokens=ends)
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.json` or in a directory that holds one. Raises UsageError when there is none."""
    file = path / TOKENIZER_FILE if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more specific
        raise UsageError(f"{file} is not a readable tokenizer ({error}); give a {TOKENIZER_FILE}.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def find_roles(tokenizer: Tokenizer) -> Roles:
    """Which tokens pad, begin and end, as far as their names say it."""
    found = {
        role: next((token for name in names if (token := tokenizer.token_to_id(name)) is not None), None)
        for role, names in _NAMES.items()
    }
    return Roles(pad=found["pad"], begin=found["begin"], end=found["end"])


def _untrained(options: VocabularyOptions) -> tuple[Tokenizer, trainers.Trainer]:
    """A tokenizer and what trains it."""
    lower = [normalizers.Lowercase()] if options.lowercase else []
    words = pre_tokenizers.WhitespaceSplit()
    tokenizer: Tokenizer
    if options.algorithm == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *lower])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=True)])
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer, trainers.BpeTrainer(
            vocab_size=options.size,
            special_tokens=list(_SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    if options.algorithm == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=_UNKNOWN, max_input_chars_per_word=_LONGEST_WORD))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=options.lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return tokenizer, trainers.WordPieceTrainer(
            vocab_size=options.size, special_tokens=[*_SPECIAL, _UNKNOWN], show_progress=False
        )
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *lower])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=options.size,
        special_tokens=[*_SPECIAL, _UNKNOWN],
        unk_token=_UNKNOWN,
        show_progress=False,
    )
