"""A tokenizer trained on the data: word pieces, lower case, accents off."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_tokenizer(texts: Sequence[str], vocabulary: int, ends: bool) -> Tokenizer:
    """Return a WordPiece tokenizer (Wu et al. 2016, arXiv 1609.08144) of at most ``vocabulary`` tokens.

    Args:
        texts: what it is trained on; the same texts give the same tokenizer.
        ends: put [CLS] and [SEP] around each text.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()

    def words(text: str) -> list[str]:
        return [word for word, _ in made.pre_tokenizer.pre_tokenize_str(made.normalizer.normalize_str(text))]

    # The trainer numbers signs inside words in no fixed order, on which ties between merges then depend; signs that are
    # given to it as special tokens keep the order they are given in. A word with any other sign inside could only be
    # [UNK], so none is shown to the trainer.
    counts: Counter[str] = Counter()
    for word, times in Counter(word for text in texts for word in words(text)).items():
        for sign in word[1:]:
            counts[sign] += times
    signs = sorted(counts, key=lambda sign: (-counts[sign], sign))[: max(0, vocabulary // 2 - len(SPECIAL))]
    seen = texts
    if len(signs) < len(counts):
        seen = [" ".join(word for word in words(text) if set(word[1:]) <= set(signs)) for text in texts]
    fixed = [*SPECIAL, *(f"##{sign}" for sign in signs)]
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=fixed, show_progress=False)
    made.train_from_iterator(seen, trainer)
    described = json.loads(made.to_str())
    described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] in SPECIAL]
    made = Tokenizer.from_str(json.dumps(described))
    if ends:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
        )
    return made
