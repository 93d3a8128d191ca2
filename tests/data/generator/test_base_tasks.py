from __future__ import annotations

import re
from collections import Counter

import pytest

from tripletune.data.generator.base_tasks import TASKS, BaseTasks, iter_base_pairs
from tripletune.data.generator.domain import Relation
from tripletune.data.generator.names import NAME_KINDS, pool_of
from tripletune.data.generator.sentences import Sentence
from tripletune.data.linearize import parse_free
from tripletune.data.prompts import render_query

WROTE = Relation("作者", "图书", "人物", ("作者",))
PRINTED = Relation("出版社", "图书", "出版社", ("出版方",))
SENTENCE = Sentence(
    "《夜航》由李文所著，海棠出版社出版了它，王方很喜欢。",
    [("夜航", WROTE, "李文"), ("夜航", PRINTED, "海棠出版社")],
    [("夜航", "图书"), ("李文", "人物"), ("海棠出版社", "出版社"), ("王方", "人物")],
)
EMPTY = Sentence("今天下雨了。", [], [])


@pytest.fixture(scope="module")
def pairs():
    return list(iter_base_pairs(3, 20_000))


def answers(task, sentence=SENTENCE, times=300):
    tasks = BaseTasks(1)
    made = [getattr(tasks, f"_{task}")(sentence) for _ in range(times)]
    return [pair for pair in made if pair is not None]


def test_iter_base_pairs_gives_as_many_as_asked(pairs):
    assert len(pairs) == 20_000
    assert list(iter_base_pairs(1, 0)) == []


def test_iter_base_pairs_depends_on_the_seed_alone(pairs):
    assert list(iter_base_pairs(3, 100)) == pairs[:100]
    assert list(iter_base_pairs(4, 100)) != pairs[:100]


def test_no_pair_has_an_empty_side(pairs):
    assert all(query.strip() and answer.strip() for query, answer in pairs)


def test_no_answer_is_in_the_triplet_format(pairs):
    for _, answer in pairs:
        assert parse_free(answer).triplets == ()
        assert not re.search(r"^\s*[(（]", answer, re.MULTILINE)


def test_no_question_is_the_triplet_prompt(pairs):
    prompt = render_query("")
    for query, _ in pairs:
        assert prompt.rstrip(":\n") not in query
        assert "三元组" not in query


def test_questions_and_answers_have_no_open_slots(pairs):
    for query, answer in pairs:
        for text in (query, answer):
            assert not re.search(r"\{[a-z]\}", text)


def test_most_weight_is_on_listing_all_facts():
    weights = dict(TASKS)
    assert weights["all_facts"] / sum(weights.values()) >= 0.4


def test_names_are_those_of_the_base_pool():
    tasks = BaseTasks(5)
    for _ in range(1000):
        for name, kind in tasks._sentence().mentions:
            if NAME_KINDS[kind][1]:
                assert pool_of(name) == "base"


def test_sentences_hold_characters_that_no_morpheme_has(pairs):
    assert len({character for query, _ in pairs for character in query}) > 3500


def test_all_facts_are_complete():
    for _, answer in answers("all_facts"):
        for item in ("夜航", "作者", "李文", "出版社", "海棠出版社"):
            assert item in answer


def test_one_relation_gives_only_that_relation():
    found = Counter()
    for query, answer in answers("one_relation"):
        if "没" in answer or "未" in answer or "不知" in answer:
            continue
        found["李文" in answer, "海棠" in answer] += 1
        assert ("李文" in answer) == ("作者" in query)
    assert set(found) == {(True, False), (False, True)}


def test_object_question_is_answered_with_the_object():
    for query, answer in answers("object_question"):
        expected = "李文" if "作者" in query else "海棠出版社"
        sentence = "请用完整的句子回答" in query
        assert answer == expected or (sentence and answer.endswith(f"是{expected}。"))


def test_object_question_without_a_fact_is_not_answered():
    nothing = Sentence("王方很喜欢。", [], [("王方", "人物")])
    assert {answer for _, answer in answers("object_question", nothing)} == {
        "没有提到",
        "文中没有提到",
        "未提及",
        "不知道",
    }


def test_subject_question_is_answered_with_the_subject():
    assert {answer for _, answer in answers("subject_question")} == {"夜航"}


def test_entities_stand_in_the_order_of_the_text():
    found = {answer for _, answer in answers("entities")}
    assert "李文、王方" in found
    assert "夜航：图书\n李文：人物\n海棠出版社：出版社\n王方：人物" in found
    assert "没有" in found


def test_relation_of_pair_is_named_or_denied():
    for query, answer in answers("relation_of_pair"):
        if answer == "没有关系":
            assert not ("夜航" in re.split("[。]", query)[0] and "李文" in query) or "王方" in query
        else:
            assert answer in ("作者", "出版社")


def test_true_or_false_is_true_when_the_fact_is_stated():
    true_statement = re.compile(
        "夜航的作者[是为]李文|李文是夜航的作者|夜航，作者，李文"
        "|夜航的出版社[是为]海棠出版社|海棠出版社是夜航的出版社|夜航，出版社，海棠出版社"
    )
    for query, answer in answers("true_or_false"):
        assert (true_statement.search(query) is not None) == (answer in ("是", "对", "一致"))


def test_copy_is_verbatim():
    for query, answer in answers("copy"):
        assert answer in query
        assert answer in SENTENCE.text


def test_copy_list_holds_only_given_names():
    for query, answer in answers("copy_list"):
        for name in re.split("、|\n| -> |\\]\\[", answer.strip("[]")):
            assert re.sub(r"^\d+\. ", "", name) in query


def test_fill_in_asks_for_what_was_hidden():
    hidden = set()
    for query, answer in answers("fill_in"):
        assert SENTENCE.text not in query
        hidden.add(answer)
    assert hidden == {"夜航", "李文", "海棠出版社"}


def test_write_is_answered_with_the_sentence():
    assert {answer for _, answer in answers("write")} == {SENTENCE.text}


def test_count_counts_facts_and_people():
    for query, answer in answers("count"):
        assert answer == "2", query


@pytest.mark.parametrize("task", [name for name, _ in TASKS])
def test_every_task_copes_with_a_sentence_without_entities(task):
    for query, answer in answers(task, EMPTY):
        assert query.strip()
        assert answer.strip()
