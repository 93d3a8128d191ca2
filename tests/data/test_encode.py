from __future__ import annotations

from tripletune.data.encode import TokenizedExample, encode_examples
from tripletune.schema import Example, Triplet

PROMPT = "请从以下文本中抽取三元组，格式为(主体, 关系, 客体):\n{}"
ONE = Example("甲位于乙。", (Triplet("甲", "位于", "乙"),))


class CharacterTokenizer:
    """One id a character, its code point; 1 ends a prompt, 2 an answer."""

    eos_token_id = 2
    chat_template = None

    def build_prompt_ids(self, query: str) -> list[int]:
        return [*map(ord, query), 1]

    def encode_plain(self, text: str) -> list[int]:
        return [*map(ord, text)]


def encode(examples, **changes):
    arguments = {"max_source_tokens": 100, "max_target_tokens": 50} | changes
    return encode_examples(examples, CharacterTokenizer(), **arguments)


def test_encode_prompt_then_answer_then_end():
    (encoded,), _ = encode([ONE])
    prompt = [*map(ord, PROMPT.format("甲位于乙。")), 1]
    assert encoded == TokenizedExample([*prompt, *map(ord, "(甲, 位于, 乙)"), 2], len(prompt))


def test_relations_stand_in_the_prompt_of_their_own_example():
    encoded, _ = encode([ONE, ONE], relations=[["位于"], ["作者", "位于"]])
    prompts = [e.input_ids[: e.num_prompt_tokens - 1] for e in encoded]
    wording = "请从以下文本中抽取三元组，格式为(主体, 关系, 客体)，关系限于{}:\n甲位于乙。"
    assert ["".join(map(chr, ids)) for ids in prompts] == [
        wording.format("位于"),
        wording.format("作者、位于"),
    ]


def test_labels_are_the_answer_and_its_end_only():
    (encoded,), _ = encode([ONE])
    answer = [*map(ord, "(甲, 位于, 乙)"), 2]
    assert encoded.labels == [-100] * (len(encoded) - len(answer)) + answer


def test_answer_names_each_triplet_once_in_the_order_of_the_text():
    slots = Triplet("甲", "位于", "乙", object_slots=(("onDate", "今天"),))
    example = Example("甲位于乙，丙位于丁。", (Triplet("丙", "位于", "丁"), *ONE.triplets, slots))
    (encoded,), report = encode([example])
    answer = encoded.input_ids[encoded.num_prompt_tokens : -1]
    assert "".join(map(chr, answer)) == "(甲, 位于, 乙)\n(丙, 位于, 丁)"
    assert report.num_repeated == 1


def test_no_triplet_has_its_own_answer():
    (encoded,), _ = encode([Example("天气不错。")])
    assert encoded.labels[-2:] == [ord("无"), 2]


def test_long_target_is_dropped_and_counted_never_cut():
    encoded, report = encode([ONE, Example("好。")], max_target_tokens=10)
    assert [len(e) for e in encoded] == [len(PROMPT.format("好。")) + 1 + 2]
    assert (report.num_examples, report.num_kept, report.num_long_targets) == (2, 1, 1)
    assert report.dropped == [0]


def test_target_of_exactly_the_limit_is_kept():
    length = len("(甲, 位于, 乙)") + 1
    assert len(encode([ONE], max_target_tokens=length)[0]) == 1
    assert len(encode([ONE], max_target_tokens=length - 1)[0]) == 0


def test_long_text_is_dropped_by_default():
    encoded, report = encode([ONE], max_source_tokens=len(PROMPT))
    assert encoded == []
    assert (report.num_long_texts, report.dropped) == (1, [0])


def test_long_text_is_shortened_to_whole_sentences_when_asked():
    both = Example(
        "甲位于乙。丙位于丁。", (Triplet("甲", "位于", "乙"), Triplet("丙", "位于", "丁"))
    )
    limit = len(PROMPT.format("甲位于乙。丙位于丁")) + 1
    encoded, report = encode([both], max_source_tokens=limit, long_texts="shorten")
    assert encoded == encode([ONE])[0]
    assert (report.num_kept, report.num_shortened, report.num_long_texts) == (1, 1, 0)


def test_text_without_a_sentence_that_fits_is_dropped_even_when_shortening():
    encoded, report = encode([ONE], max_source_tokens=len(PROMPT), long_texts="shorten")
    assert encoded == []
    assert (report.num_long_texts, report.num_shortened) == (1, 0)
