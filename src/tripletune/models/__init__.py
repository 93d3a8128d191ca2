"""Native ChatGLM networks and tokenizers, and how they are loaded.

Shapes in comments use one legend: B batch, S query length, K key length with cache, H query heads,
G key/value heads, D head width, E model width, F MLP width, V vocabulary, R LoRA rank.
"""
