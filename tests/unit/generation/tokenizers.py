"""Small tokenizers of the kinds that models have, trained on a few lines."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "the capital of France is Paris and the quick brown fox jumps over the lazy dog",
    "once upon a time there was a small language model that wrote a story",
    "Grüße aus Köln, 日本語 and 😀",
]
BEGIN, END, MARK = "<s>", "</s>", "<think>"
_SPECIAL = [AddedToken("<unk>", special=True), AddedToken(BEGIN, special=True), AddedToken(END, special=True)]


def byte_level():
    """GPT-2's kind: also of Llama 3, Qwen, SmolLM."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    # Added tokens are part of the text unless they are special; their letters may be none of the alphabet's.
    made.add_tokens([AddedToken(MARK, special=False, normalized=False), AddedToken("思 考", special=False)])
    return made


def _sentence_pieces():
    pieces = [(token.content, 0.0) for token in _SPECIAL] + [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    words = sorted({word for line in TEXT[:2] for word in line.split()})
    letters = sorted({letter for line in TEXT[:2] for letter in line if letter != " "})
    pieces += [(f"▁{word}", -5.0) for word in words] + [(letter, -9.0) for letter in letters] + [("▁", -8.0)]
    return models.Unigram(pieces, unk_id=0, byte_fallback=True)


def sentence_piece():
    """Llama 2's and Mistral's kind: a space before the first word, bytes for what is not in the vocabulary."""
    made = Tokenizer(_sentence_pieces())
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(_SPECIAL)
    made.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 1)])
    return made


def gemma():
    """The same without the first space."""
    made = Tokenizer(_sentence_pieces())
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens(_SPECIAL)
    return made


def metaspace():
    """T5's kind: no bytes."""
    made = Tokenizer(_sentence_pieces())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(_SPECIAL)
    return made


def word_piece():
    """BERT's kind: marks the parts of words that are not the first."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=120, special_tokens=_SPECIAL, show_progress=False)
    )
    return made


def word_ends():
    """CLIP's kind: marks the last part of each word, so that a space depends on the next token."""
    made = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=150, special_tokens=_SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    return made


KINDS = {
    "byte_level": byte_level,
    "sentence_piece": sentence_piece,
    "gemma": gemma,
    "metaspace": metaspace,
    "word_piece": word_piece,
    "word_ends": word_ends,
}
