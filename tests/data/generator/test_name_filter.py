from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tripletune.data.generator.name_filter import NameFilter


def test_name_filter_finds_names_inside_longer_words():
    names = NameFilter(["王芳", "临海大学"])
    assert names.occurs("王芳华来了")
    assert names.occurs("新临海大学城")
    assert not names.occurs("王小芳在临海的大学")


def test_name_filter_finds_names_of_one_character():
    assert NameFilter(["秦"]).occurs("大秦")
    assert not NameFilter(["秦"]).occurs("大汉")


@given(
    st.lists(st.text("甲乙丙", min_size=1, max_size=4), max_size=5),
    st.text("甲乙丙丁", max_size=12),
)
def test_name_filter_agrees_with_plain_search(names, text):
    assert NameFilter(names).occurs(text) == any(name in text for name in names)
