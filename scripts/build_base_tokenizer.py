"""Make the vocabulary of the embedded base model: `python scripts/build_base_tokenizer.py`.

One piece a character: ASCII, punctuation, the 3,755 characters of GB 2312 level 1 and further ones
that are common in names; any other character is written as bytes. The pieces stand in the order of
ChatGLM-6B's `ice_text.model`: `<unk> <s> </s> <pad> <n>`, characters, `[MASK]` to `<dBLOCK>`,
`<|tab|>`, `<|blank_2|>` to `<|blank_80|>`, bytes. SentencePiece counts the characters of generated
text and supplies the NFKC rules; this script puts the pieces into that order. The weights of the
embedded model belong to the file they were trained with: a new vocabulary needs new weights.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from tripletune.data.generator.base_tasks import iter_base_pairs
from tripletune.data.generator.names import COMMON_CHARACTERS

OUTPUT_DIR = Path(__file__).resolve().parents[1] / "src" / "tripletune" / "assets" / "embedded"

CONTROLS = ["[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"]
BLANKS = ["<|tab|>", *(f"<|blank_{count}|>" for count in range(2, 81))]
PUNCTUATION = "，。、；：？！“”‘’（）《》〈〉【】「」『』〔〕—…·～→←↑↓×÷±°％‰№★☆●○◆■□△▲※§"
# Not in GB 2312 level 1, but frequent in names of people, companies and places.
FURTHER_CHARACTERS = (
    "鑫淼焱晗璇琪瑜璐珊珩玮琰玥昕昊晟晔暄曦煜烨焕熠炜燊骏骅骞鹭鹂鹃鹤麒麟彤彦彧徽徵忻怿恺悦惇愔憬懿"
    "捷揆斐旻昀昱晏晁晞暐曜杞杭枥柘柯栩桢梓梵棠楚榆榕樨樾橙檀沁沂沅沚沛沣沱泓泗泠泫泯洵洮洹浔浚涵淇淮"
    "淳渊渝湄湘溆滇滕滢漪漳潇潞潼澄澍澧濂濠濮瀛灏炀炅炎焘煊煦熹璋璞璟瑄瑗瑛瑭瑶瑾璨瓒甄皓皖盱睢睿瞿"
    "砚砺硕碧磬祁祉祎祐祯禧禹稷窦筠箐箫篆籁绛绫绮缇缙缪羲翀翊翎翡翥翮聆聿胤臧舜芃芊芍芙芮芷苌苑苒苓"
    "茉茴茵茹荀荃荇荟莎莘莞莳菀菅萃萱葳蒋蒲蓁蓟蓬蔚蔺蕙蕤薛薰藜蘅虔蜀衍衢裴襄覃觅诩谌谙谛谧谯谡赟赣"
    "跻踪轲轶辔邃邈邑邓邕邗邢邯邰邵郁郅郇郗郜郝郢郦郧郫郯郴鄂鄞鄢鄯酆钊钏钜钰钲铄铎铖铠铭铮锴锺镕镛"
    "镭闫闵闽阆阙阚阮陇陕隋隗隽雒霁霓霖霰靓靖韬韵韶颉颍颐颢飒馗馥骊骋骐骥鲍鲲鳌鸢鸾鹊黛黟黎黔龚龢龄"
    "喆嘏囡圳圻坻埔埕埠堃塍墉壬夔奕妍妤姒姝姣娉娣娴婕婧婵婷媛嫒嫣嬅嬴孜孚岐岑岚岷峥峪崂崃崆崤崧嵊嵘"
    "嵩嵬嶂巍帏弈弋彭徕忱忭怡恬恽愫慷扈拓挈擎敖斛旖旸旺昙晖晗晴暹曌曙杏杳枞枭栎栾桉桁桓桷梧棣椿楠楷"
    "槐槿樊樽橦欤毓汀汐汕汛汜汶沄沐沭泱泸泾洙洛浏浙浦浩涞涟涧淄淙渑渤湛湜溧滁漕漯澳濡灞灿炳烜煌煐"
)


def list_characters() -> list[str]:
    """Every character that gets a piece, sorted; only those that normalisation leaves alone."""
    ascii_characters = "".join(chr(code) for code in range(0x21, 0x7F))
    wanted = ascii_characters + PUNCTUATION + COMMON_CHARACTERS + FURTHER_CHARACTERS
    return sorted(set(wanted))


def iter_text(num_pairs: int, seed: int, characters: list[str]) -> Iterator[str]:
    """Generated text, and every wanted character once."""
    for query, answer in iter_base_pairs(seed, num_pairs):
        yield from (query + "\n" + answer).split("\n")
    for start in range(0, len(characters), 100):
        yield "".join(characters[start : start + 100])


def train_pieces(num_pairs: int, seed: int) -> bytes:
    """A SentencePiece model that has the characters and the rules, in SentencePiece's order."""
    characters = list_characters()
    normalised = _normaliser()
    kept = [c for c in characters if normalised.normalize(c) == c]
    wanted = set(kept)
    text = (
        "".join(c for c in normalised.normalize(line) if c in wanted or c == " ")
        for line in iter_text(num_pairs, seed, kept)
    )
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=text,
        model_writer=model,
        model_type="char",
        vocab_size=4 + len(CONTROLS) + 1 + len(BLANKS) + 256 + len(kept) + 1,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="nmt_nfkc",
        control_symbols=CONTROLS,
        user_defined_symbols=["<n>", *BLANKS],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _normaliser() -> sentencepiece.SentencePieceNormalizer:
    return sentencepiece.SentencePieceNormalizer(
        rule_name="nmt_nfkc", add_dummy_prefix=False, escape_whitespaces=False
    )


def reorder_pieces(model: bytes) -> bytes:
    """The same model with its pieces in the order of ChatGLM-6B."""
    fields = list(iter_fields(model))
    pieces = {read_piece_name(body): body for tag, body in fields if tag == _PIECE}
    special = ["<unk>", "<s>", "</s>", "<pad>", "<n>"]
    byte_pieces = [f"<0x{value:02X}>" for value in range(256)]
    late = [*CONTROLS, *BLANKS, *byte_pieces]
    placed = {*special, *late}
    order = [*special, *(name for name in pieces if name not in placed), *late]
    ordered = [(_PIECE, pieces[name]) for name in order]
    rest = [(tag, body) for tag, body in fields if tag != _PIECE]
    return b"".join(bytes([tag]) + write_varint(len(body)) + body for tag, body in ordered + rest)


# The protocol buffer tag of `ModelProto.pieces`: field 1, length-delimited. Every other field of
# `ModelProto` that SentencePiece writes is length-delimited, too, and has a one-byte tag.
_PIECE = 0x0A


def iter_fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of every field of a message that has only length-delimited fields."""
    position = 0
    while position < len(message):
        tag = message[position]
        if tag & 7 != 2 or tag & 0x80:
            raise ValueError(f"field tag {tag:#x} at byte {position} is not length-delimited")
        length, start = read_varint(message, position + 1)
        yield tag, message[start : start + length]
        position = start + length


def read_piece_name(piece: bytes) -> str:
    """The text of a piece, the first field of its message."""
    length, start = read_varint(piece, 1)
    return piece[start : start + length].decode("utf-8")


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """A variable-length number and the position behind it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def write_varint(value: int) -> bytes:
    """A number in the variable-length form of protocol buffers."""
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def main() -> None:
    """Write `ice_text.model` and `tokenizer_config.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--num_pairs", type=int, default=50_000, help="pairs to count characters in"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output_dir", type=Path, default=OUTPUT_DIR)
    arguments = parser.parse_args()
    model = reorder_pieces(train_pieces(arguments.num_pairs, arguments.seed))
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    (arguments.output_dir / "ice_text.model").write_bytes(model)
    config = {
        "name_or_path": "embedded",
        "bos_token": "<sop>",
        "eos_token": "<eop>",
        "end_token": "</s>",
        "gmask_token": "[gMASK]",
        "mask_token": "[MASK]",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "remove_space": False,
        "do_lower_case": False,
        "tokenizer_class": "ChatGLMTokenizer",
        "num_image_tokens": 0,
    }
    path = arguments.output_dir / "tokenizer_config.json"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    size = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    print(f"{size} pieces, {len(model):,} bytes: {arguments.output_dir}")


if __name__ == "__main__":
    main()
